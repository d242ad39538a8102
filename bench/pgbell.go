package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/listener"
	"github.com/pgbell/pgbell/migrations"
)

// pgbellConnections are those of the program, save the two of the listener.
const pgbellConnections = 8

// pgbell is a sidecar in this process, as an application that embeds pgbell has it: dispatcher, listener, a Go handler.
type pgbell struct {
	concurrency int
	// kind of jobs that it has a handler for; "" means bench.
	kind string
	// deletes finished jobs instead of keeping them.
	deletes bool
}

func (p pgbell) name() string {
	switch {
	case p.kind == "other":
		return "pgbell, with jobs for another type only"
	case p.concurrency > 0:
		return fmt.Sprintf("pgbell, concurrency %d", p.concurrency)
	}
	return "pgbell"
}

func (p pgbell) tuning() string {
	said := fmt.Sprintf("shipped defaults, %d connections", pgbellConnections)
	if p.concurrency > 0 {
		said += fmt.Sprintf(", Concurrency %d", p.concurrency)
	}
	if p.deletes {
		said += ", Retention.Completed KeepNothing"
	}
	return said
}

func (p pgbell) role() role {
	if p.kind == "other" {
		return aside
	}
	return ours
}

func (pgbell) ready(context.Context) error { return nil }

func (pgbell) install(ctx context.Context, url string, jobs int) error {
	conn, closeConn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer closeConn()
	if err := migrations.Up(ctx, conn, migrations.Config{}); err != nil {
		return fmt.Errorf("install pgbell: %w", err)
	}
	return executeFilled(ctx, url, fillSQL, jobs)
}

func (pgbell) producer(ctx context.Context, url string, connections int) (producer, error) {
	pool, err := openPool(ctx, url, connections)
	return statements{pool: pool, now: insertSQL, later: insertLaterSQL}, err
}

func (pgbell) left(ctx context.Context, conn *pgx.Conn) (bool, error) {
	return exists(ctx, conn, leftSQL)
}

func (p pgbell) finished(ctx context.Context, conn *pgx.Conn, jobs int) error {
	if p.deletes {
		return expect(ctx, conn, countSQL, 0)
	}
	return expect(ctx, conn, completedSQL, jobs)
}

func (p pgbell) boot(ctx context.Context, url string, load load) (worker, error) {
	return p.sidecar(ctx, url, load, pgbellConnections)
}

// embedded is a pgbell in this process.
type embedded struct {
	pool       *pgxpool.Pool
	bell       *listener.Listener
	dispatcher *dispatch.Dispatcher
	cancel     context.CancelFunc
	both       sync.WaitGroup
	errs       [2]error
}

func (p pgbell) sidecar(ctx context.Context, url string, load load, connections int) (*embedded, error) {
	pool, err := openPool(ctx, url, connections)
	if err != nil {
		return nil, err
	}
	bell, err := listener.New(listener.Config{URL: url})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure listener: %w", err)
	}
	kind := p.kind
	if kind == "" {
		kind = "bench"
	}
	config := dispatch.Config{
		Types:       map[string]dispatch.Type{kind: {Handler: handler(load)}},
		Concurrency: max(p.concurrency, load.concurrency), Bell: bell, Presence: bell,
	}
	if p.deletes {
		config.Retention.Completed = dispatch.KeepNothing
	}
	dispatcher, err := dispatch.New(pool, config)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configure dispatcher: %w", err)
	}
	return &embedded{pool: pool, bell: bell, dispatcher: dispatcher, cancel: func() {}}, nil
}

// handler notes the job's number, and sleeps if jobs are to take long.
func handler(load load) dispatch.Handler {
	if load.handler != nil {
		return load.handler
	}
	return benchHandler(load)
}

type benchHandler load

func (h benchHandler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	h.recorder.begin(number(job.Payload))
	if h.each > 0 {
		if err := pause(ctx, h.each); err != nil {
			return dispatch.Retry(err)
		}
	}
	return dispatch.Done(nil)
}

func (e *embedded) work(ctx context.Context) error {
	ctx, e.cancel = context.WithCancel(ctx)
	e.both.Go(func() { e.errs[0] = e.bell.Run(ctx) })
	e.both.Go(func() { e.errs[1] = e.dispatcher.Run(ctx) })
	return nil
}

func (*embedded) collect(context.Context) error { return nil }

func (e *embedded) stop() error {
	e.cancel()
	e.both.Wait()
	e.pool.Close()
	return errors.Join(e.errs[0], e.errs[1])
}

// asleep returns when the sidecar hears its bell and has looked for jobs.
func (e *embedded) asleep(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for the first claim: %w", context.Cause(ctx))
	case <-e.dispatcher.Ready():
	}
	for e.bell.Deaf() {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the bell: %w", err)
		}
	}
	return nil
}

// metric sums a metric of the sidecar over its labels, of those series that have label=value if a label is given. Of a
// histogram it takes the count, or, with sum, the sum.
func (e *embedded) metric(name, label, value string, sum bool) (total float64, found bool, err error) {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(e.dispatcher.Collector()); err != nil {
		return 0, false, fmt.Errorf("read metrics: %w", err)
	}
	families, err := registry.Gather()
	if err != nil {
		return 0, false, fmt.Errorf("read metrics: %w", err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, series := range family.GetMetric() {
			fits := label == ""
			for _, pair := range series.GetLabel() {
				fits = fits || pair.GetName() == label && pair.GetValue() == value
			}
			if !fits {
				continue
			}
			found = true
			switch histogram := series.GetHistogram(); {
			case histogram == nil:
				total += series.GetCounter().GetValue() + series.GetGauge().GetValue()
			case sum:
				total += histogram.GetSampleSum()
			default:
				total += float64(histogram.GetSampleCount())
			}
		}
	}
	return total, found, nil
}
