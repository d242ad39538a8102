package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverQueue is River. Its own docs say that throughput is limited by FetchCooldown, and that workers wait for ever shorter
// polls; its own benchmark has 2,000 workers.
type riverQueue struct{ tuned bool }

func (r riverQueue) name() string {
	if r.tuned {
		return "River, tuned"
	}
	return "River, defaults"
}

func (r riverQueue) tuning() string {
	if r.tuned {
		return "v0.51: MaxWorkers 2000 (or the scenario's), FetchCooldown 1 ms, FetchPollInterval 10 ms, pool of 16; jobs kept for a day"
	}
	return "v0.51: MaxWorkers 100 (or the scenario's), FetchCooldown 100 ms, FetchPollInterval 1 s, pool of 16; jobs kept for a day"
}

func (riverQueue) role() role                  { return peer }
func (riverQueue) ready(context.Context) error { return nil }

type riverArgs struct {
	N int `json:"n"`
}

func (riverArgs) Kind() string { return "bench" }

func (r riverQueue) config() river.Config {
	config := river.Config{Logger: slog.New(slog.DiscardHandler)}
	if r.tuned {
		config.FetchCooldown, config.FetchPollInterval = time.Millisecond, 10*time.Millisecond
	}
	return config
}

func (riverQueue) install(ctx context.Context, url string, jobs int) error {
	pool, err := openPool(ctx, url, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return fmt.Errorf("install River: %w", err)
	}
	return executeFilled(ctx, url, riverFillSQL, jobs)
}

type riverProducer struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

// producer is a client of its own with the same configuration: it is the inserting client that notifies.
func (r riverQueue) producer(ctx context.Context, url string, connections int) (producer, error) {
	pool, err := openPool(ctx, url, connections)
	if err != nil {
		return nil, err
	}
	config := r.config()
	client, err := river.NewClient(riverpgxv5.New(pool), &config)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure River: %w", err)
	}
	return riverProducer{pool: pool, client: client}, nil
}

func (p riverProducer) insert(ctx context.Context, n int, due time.Time) error {
	var options *river.InsertOpts
	if !due.IsZero() {
		options = &river.InsertOpts{ScheduledAt: due}
	}
	if _, err := p.client.Insert(ctx, riverArgs{N: n}, options); err != nil {
		return fmt.Errorf("insert job: %w", err)
	}
	return nil
}

func (p riverProducer) close() { p.pool.Close() }

func (riverQueue) left(ctx context.Context, conn *pgx.Conn) (bool, error) {
	return exists(ctx, conn, riverLeftSQL)
}

func (riverQueue) finished(ctx context.Context, conn *pgx.Conn, jobs int) error {
	return expect(ctx, conn, riverCompletedSQL, jobs)
}

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
	load   load
}

func (r riverQueue) boot(ctx context.Context, url string, load load) (worker, error) {
	pool, err := openPool(ctx, url, 16)
	if err != nil {
		return nil, err
	}
	most := load.concurrency
	if most == 0 && r.tuned {
		most = 2000
	} else if most == 0 {
		most = 100
	}
	worker, workers, config := &riverWorker{pool: pool, load: load}, river.NewWorkers(), r.config()
	river.AddWorker(workers, worker)
	config.Workers, config.Queues = workers, map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: most}}
	if worker.client, err = river.NewClient(riverpgxv5.New(pool), &config); err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure River: %w", err)
	}
	return worker, nil
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	w.load.recorder.begin(job.Args.N)
	return pause(ctx, w.load.each)
}

func (w *riverWorker) work(ctx context.Context) error {
	if err := w.client.Start(ctx); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	return nil
}

func (*riverWorker) collect(context.Context) error { return nil }

func (w *riverWorker) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := w.client.StopAndCancel(ctx)
	w.pool.Close()
	if err != nil {
		return fmt.Errorf("stop River: %w", err)
	}
	return nil
}
