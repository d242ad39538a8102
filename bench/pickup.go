package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// warmUps are jobs that run before a measurement, so that every worker is ready by evidence, and every statement prepared.
const warmUps = 20

// pickupScenario: nothing to do, and then one job.
func pickupScenario() scenario {
	return scenario{
		name: "pickup_idle",
		about: "Single jobs with random gaps of 50 ms on average, so that the worker is idle when each comes. From the return of " +
			"the insert's commit to the start of the handler.",
		figures: []figure{
			{name: "p50", unit: "ms p50", digits: 2, less: true}, {name: "p99", unit: "ms p99", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			queues := []queue{pgbell{}, listening{}, riverQueue{tuned: true}}
			if set.full {
				queues = append(queues, riverQueue{}, graphileQueue(true), bossQueue(true), gueQueue{})
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, 0, pickup))
			}
			return systems
		},
	}
}

func pickup(ctx context.Context, r round, q queue) (figures, error) {
	jobs := int(20 * 2 * r.set.half().Seconds()) // with windows of 10 s: 200 in a round of the short run, 400 in one of the full
	return paced(ctx, r, q, warmUps+jobs, func(ctx context.Context, insert func(n int, due time.Time) error) error {
		for n := warmUps; n < warmUps+jobs; n++ {
			if err := pause(ctx, time.Duration(rand.ExpFloat64()*float64(50*time.Millisecond))); err != nil {
				return err
			}
			if err := insert(n, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	}, 1)
}

// paced runs a worker and inserts jobs by body, and returns how late they started: after the insert's return, or after their
// due time where they have one.
func paced(ctx context.Context, r round, q queue, jobs int, body func(context.Context, func(int, time.Time) error) error, connections int) (figures, error) {
	recorder, from := newRecorder(jobs), make([]atomic.Int64, jobs)
	producer, err := q.producer(ctx, r.url, connections)
	if err != nil {
		return nil, err
	}
	defer producer.close()
	got := figures{}
	err = attend(ctx, r, q, load{recorder: recorder}, func(worker worker) error {
		if err := warm(ctx, recorder, producer, worker); err != nil {
			return err
		}
		err := body(ctx, func(n int, due time.Time) error {
			err := producer.insert(ctx, n, due)
			if due.IsZero() {
				due = time.Now()
			}
			from[n].Store(due.UnixNano())
			return err
		})
		if err != nil {
			return err
		}
		_, err = settled(ctx, r, q, recorder, worker, jobs)
		return err
	})
	late := recorder.since(from)
	got["p50"], got["p99"], got["max"] = quantile(late, 0.5), quantile(late, 0.99), quantile(late, 1)
	return got, err
}

// warm starts a worker and has it run some jobs, one after the other.
func warm(ctx context.Context, recorder *recorder, producer producer, worker worker) error {
	if err := worker.work(ctx); err != nil {
		return err
	}
	for n := range warmUps {
		if err := producer.insert(ctx, n, time.Time{}); err != nil {
			return err
		}
		if err := recorder.wait(ctx, n+1); err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
	}
	return nil
}

// delayedScenario: jobs for later.
func delayedScenario() scenario {
	return scenario{
		name: "delayed",
		about: "Jobs are inserted at once and due at random times from 1 s on, a hundred a second on average. From a job's due time " +
			"to the start of the handler.",
		figures: []figure{
			{name: "p50", unit: "ms p50", digits: 2, less: true}, {name: "p99", unit: "ms p99", digits: 2, less: true},
			{name: "max", unit: "ms max", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			queues := []queue{pgbell{}, gueQueue{}}
			if set.full {
				queues = append(queues, riverQueue{tuned: true}, riverQueue{}, graphileQueue(true), bossQueue(true))
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, 0, delayed))
			}
			return systems
		},
	}
}

func delayed(ctx context.Context, r round, q queue) (figures, error) {
	jobs := int(100 * r.set.window.Seconds())
	return paced(ctx, r, q, warmUps+jobs, func(_ context.Context, insert func(n int, due time.Time) error) error {
		base := time.Now().Add(time.Second)
		for n := warmUps; n < warmUps+jobs; n++ {
			// Whole milliseconds, which all peers can say.
			due := base.Add(time.Duration(rand.Int64N(r.set.window.Milliseconds())) * time.Millisecond).Truncate(time.Millisecond)
			if err := insert(n, due); err != nil {
				return err
			}
		}
		return nil
	}, 1)
}

// rateScenario: an open loop, which doesn't slow down when the worker does.
func rateScenario(rate int) scenario {
	return scenario{
		name: fmt.Sprintf("pickup_%d", rate),
		about: fmt.Sprintf("%d inserts/s, at times that don't wait for anything, by 16 connections. Pickup as in pickup_idle; the rates "+
			"are those of the window.", rate),
		figures: []figure{
			{name: "p50", unit: "ms p50", digits: 2, less: true}, {name: "p99", unit: "ms p99", digits: 2, less: true},
			{name: "inserts_per_second", unit: "inserts/s"}, {name: "jobs_per_second", unit: "jobs/s"},
		},
		systems: func(set settings) []system {
			queues := []queue{pgbell{}}
			if rate == 4000 {
				queues = []queue{pgbell{concurrency: 1000}}
			}
			if rate == 1000 || set.full {
				queues = append(queues, riverQueue{tuned: true})
			}
			if set.full {
				queues = append(queues, riverQueue{}, graphileQueue(true), bossQueue(true), gueQueue{})
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, 0, atRate(rate)))
			}
			return systems
		},
	}
}

const rateConnections = 16

func atRate(rate int) func(context.Context, round, queue) (figures, error) {
	return func(ctx context.Context, r round, q queue) (figures, error) {
		jobs := int(float64(rate) * r.set.window.Seconds())
		recorder, from := newRecorder(warmUps+jobs), make([]atomic.Int64, warmUps+jobs)
		producer, err := q.producer(ctx, r.url, rateConnections)
		if err != nil {
			return nil, err
		}
		defer producer.close()
		got := figures{}
		err = attend(ctx, r, q, load{recorder: recorder}, func(worker worker) error {
			if err := warm(ctx, recorder, producer, worker); err != nil {
				return err
			}
			start := time.Now()
			inserted, err := openLoop(ctx, producer, start, rate, r.set.window, from)
			if err != nil {
				return err
			}
			took := time.Since(start).Seconds()
			got["inserts_per_second"] = float64(inserted) / took
			got["jobs_per_second"] = float64(recorder.runs.Load()-warmUps) / took
			_, err = settled(ctx, r, q, recorder, worker, warmUps+inserted)
			return err
		})
		late := recorder.since(from)
		got["p50"], got["p99"] = quantile(late, 0.5), quantile(late, 0.99)
		return got, err
	}
}

// openLoop inserts jobs at their times, or as soon after as a connection is free, until the window is over. Jobs are numbered
// in the order of their inserts, after the warm-up's.
func openLoop(ctx context.Context, producer producer, start time.Time, rate int, window time.Duration, from []atomic.Int64) (int, error) {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, rateConnections)
	gap := time.Second / time.Duration(rate)
	for range rateConnections {
		all.Go(func() {
			for time.Since(start) < window {
				at := next.Add(1) - 1
				n := warmUps + int(at)
				if n >= len(from) {
					next.Add(-1)
					return
				}
				if err := pause(ctx, time.Until(start.Add(time.Duration(at)*gap))); err != nil {
					errs <- err
					return
				}
				if err := producer.insert(ctx, n, time.Time{}); err != nil {
					errs <- err
					return
				}
				from[n].Store(time.Now().UnixNano())
			}
		})
	}
	all.Wait()
	close(errs)
	return int(next.Load()), <-errs
}
