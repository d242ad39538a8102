package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/vgarvardt/gue/v5"
	"github.com/vgarvardt/gue/v5/adapter/pgxv5"
)

// gueQueue is gue: a transaction per job held open while it runs, and polling alone.
type gueQueue struct{}

const gueWorkers = 16

func (gueQueue) name() string { return "gue, tuned" }
func (gueQueue) tuning() string {
	return fmt.Sprintf("v5.8: %d workers (or the scenario's), each with a connection, poll interval 20 ms (default 5 s)", gueWorkers)
}
func (gueQueue) role() role                  { return peer }
func (gueQueue) ready(context.Context) error { return nil }

func (gueQueue) install(ctx context.Context, url string, jobs int) error {
	if err := execute(ctx, url, gueSchemaSQL); err != nil {
		return err
	}
	return executeFilled(ctx, url, gueFillSQL, jobs)
}

type gueProducer struct {
	pool   *pgxpool.Pool
	client *gue.Client
}

func (gueQueue) producer(ctx context.Context, url string, connections int) (producer, error) {
	pool, err := openPool(ctx, url, connections)
	if err != nil {
		return nil, err
	}
	client, err := gue.NewClient(pgxv5.NewConnPool(pool))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure gue: %w", err)
	}
	return gueProducer{pool: pool, client: client}, nil
}

func (p gueProducer) insert(ctx context.Context, n int, due time.Time) error {
	if err := p.client.Enqueue(ctx, &gue.Job{Type: "bench", Args: []byte(payloadOf(n)), RunAt: due}); err != nil {
		return fmt.Errorf("insert job: %w", err)
	}
	return nil
}

func (p gueProducer) close() { p.pool.Close() }

func (gueQueue) left(ctx context.Context, conn *pgx.Conn) (bool, error) {
	count, err := counted(ctx, conn, gueCountSQL)
	return count > 0, err
}

func (gueQueue) finished(ctx context.Context, conn *pgx.Conn, _ int) error {
	return expect(ctx, conn, gueCountSQL, 0)
}

type gueWorker struct {
	pool   *pgxpool.Pool
	inner  *gue.WorkerPool
	cancel context.CancelFunc
	one    sync.WaitGroup
	err    error
}

func (gueQueue) boot(ctx context.Context, url string, load load) (worker, error) {
	workers := load.concurrency
	if workers == 0 {
		workers = gueWorkers
	}
	pool, err := openPool(ctx, url, workers+1)
	if err != nil {
		return nil, err
	}
	client, err := gue.NewClient(pgxv5.NewConnPool(pool))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure gue: %w", err)
	}
	run := func(ctx context.Context, job *gue.Job) error {
		load.recorder.begin(number(job.Args))
		return pause(ctx, load.each)
	}
	inner, err := gue.NewWorkerPool(client, gue.WorkMap{"bench": run}, workers, gue.WithPoolPollInterval(20*time.Millisecond))
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure gue: %w", err)
	}
	return &gueWorker{pool: pool, inner: inner, cancel: func() {}}, nil
}

func (w *gueWorker) work(ctx context.Context) error {
	ctx, w.cancel = context.WithCancel(ctx)
	w.one.Go(func() { w.err = w.inner.Run(ctx) })
	return nil
}

func (*gueWorker) collect(context.Context) error { return nil }

func (w *gueWorker) stop() error {
	w.cancel()
	w.one.Wait()
	w.pool.Close()
	return w.err
}
