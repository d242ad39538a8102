package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// producersScenario: what the bell, or a peer's, costs those who insert.
func producersScenario(clients int) scenario {
	return scenario{
		name: fmt.Sprintf("producers_%d", clients),
		about: fmt.Sprintf("%d clients insert one job per transaction as fast as they can, while the worker runs them. Sustained is the "+
			"lesser of inserts/s and jobs/s. Backlog is what was inserted and had not started at the end, in seconds of work.", clients),
		figures: []figure{
			{name: "inserts_per_second", unit: "inserts/s"}, {name: "jobs_per_second", unit: "jobs/s"},
			{name: "sustained_per_second", unit: "sustained/s"}, {name: "backlog_seconds", unit: "s of backlog", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			queues := []queue{pgbell{concurrency: 1000}, riverQueue{tuned: true}}
			if set.full {
				queues = append(queues, graphileQueue(true), bossQueue(true), gueQueue{})
			}
			if set.full && clients > 8 {
				queues = append(queues, riverQueue{})
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, 0, producers(clients, true)))
			}
			for _, q := range []queue{
				pgbell{kind: "other"},
				idleTable{called: noTrigger},
				idleTable{called: nothingTrigger, sql: []string{nothingTriggerSQL}},
				idleTable{called: notifyTrigger, sql: []string{notifyTriggerSQL}},
			} {
				systems = append(systems, of(q, 0, producers(clients, false)))
			}
			return systems
		},
	}
}

// Names that the goals know.
const (
	noTrigger      = "table without a trigger"
	nothingTrigger = "table with a trigger that does nothing"
	notifyTrigger  = "table with a plain NOTIFY trigger"
)

// mostInserts bounds a window.
const mostInserts = 1_000_000

// producers lets clients insert for a window. runs says whether the jobs are run at all.
func producers(clients int, runs bool) func(context.Context, round, queue) (figures, error) {
	return func(ctx context.Context, r round, q queue) (figures, error) {
		recorder := newRecorder(mostInserts)
		producer, err := q.producer(ctx, r.url, clients)
		if err != nil {
			return nil, err
		}
		defer producer.close()
		var got figures
		err = attend(ctx, r, q, load{recorder: recorder}, func(worker worker) error {
			done := 0
			if runs {
				done = warmUps
				err = warm(ctx, recorder, producer, worker)
			} else if err = worker.work(ctx); err == nil {
				err = quiet(ctx, worker)
			}
			if err != nil {
				return err
			}
			flow, err := flatOut(ctx, producer, recorder, clients, done, r.set.half())
			if err != nil {
				return err
			}
			got = figures{"inserts_per_second": flow.inserts}
			if !runs {
				return nil
			}
			got["jobs_per_second"] = flow.jobs
			got["sustained_per_second"] = min(flow.jobs, flow.inserts)
			got["backlog_seconds"] = float64(flow.backlog) / max(1, flow.jobs)
			return checkAfter(ctx, r, q, recorder, worker, flow.next)
		})
		return got, err
	}
}

// quiet returns when a sidecar without jobs is asleep.
func quiet(ctx context.Context, worker worker) error {
	if sidecar, ok := worker.(*embedded); ok {
		if err := sidecar.asleep(ctx); err != nil {
			return err
		}
		return pause(ctx, 200*time.Millisecond)
	}
	return nil
}

// flow is what went in and out while producers were at it.
type flow struct {
	inserts, jobs float64 // per second
	backlog       int     // at the end
	next          int     // the first job's number that was not inserted
}

// flatOut lets clients insert, from job number first on. The first tenth of the time, in which statements are prepared and the
// worker finds its pace, is not measured.
func flatOut(ctx context.Context, producer producer, recorder *recorder, clients, first int, window time.Duration) (flow, error) {
	var next atomic.Int64
	next.Store(int64(first))
	var over atomic.Bool
	var all sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		all.Go(func() {
			for !over.Load() {
				n := int(next.Add(1)) - 1
				if n >= mostInserts {
					next.Add(-1)
					return
				}
				if err := producer.insert(ctx, n, time.Time{}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	err := pause(ctx, window/10)
	start, inserted, ran := time.Now(), next.Load(), recorder.runs.Load()
	err = errors.Join(err, pause(ctx, window))
	took := time.Since(start).Seconds()
	f := flow{inserts: float64(next.Load()-inserted) / took, jobs: float64(recorder.runs.Load()-ran) / took}
	f.backlog = max(0, int(next.Load()-recorder.runs.Load()))
	over.Store(true)
	all.Wait()
	close(errs)
	f.next = int(next.Load())
	for failure := range errs {
		err = errors.Join(err, failure)
	}
	return f, err
}

// checkAfter waits for the backlog, and checks. A peer that needs more than twice the window for it is not waited for.
func checkAfter(ctx context.Context, r round, q queue, recorder *recorder, worker worker, jobs int) error {
	limited, cancel := context.WithTimeout(ctx, max(5*time.Second, 2*r.set.window))
	defer cancel()
	_, err := settled(limited, r, q, recorder, worker, jobs)
	if err != nil && q.role() == peer && limited.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}
