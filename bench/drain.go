package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drainScenario: pending jobs that cost nothing to run. What is left is what the queue itself costs.
func drainScenario() scenario {
	return scenario{
		name: "drain",
		about: "Jobs are due at the start; running one costs nothing; finished rows are kept, but by gue. From the start of the worker until " +
			"the last job is completed in the database; for peers that take longer than a window, the rate of the window.",
		figures: []figure{{name: "jobs_per_second", unit: "jobs/s"}},
		systems: func(set settings) []system {
			queues := []queue{pgbell{}, pgbell{concurrency: 1000}, riverQueue{tuned: true}, bossQueue(true)}
			if set.full {
				queues = append(queues, riverQueue{}, bossQueue(false), gueQueue{})
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, set.jobs, drain(set.jobs)))
			}
			return append(systems, floors(set.jobs, false)...)
		},
	}
}

// millionScenario is drain with ten times the jobs, for those that are quick enough.
func millionScenario() scenario {
	s := drainScenario()
	s.name, s.about = "drain_million", "The same with ten times the jobs. "+s.about
	s.systems = func(set settings) []system {
		if !set.full {
			return nil
		}
		var systems []system
		for _, q := range []queue{
			pgbell{}, pgbell{concurrency: 1000}, loops{batch: 500, connections: 4}, loops{batch: 1000, connections: 4},
		} {
			systems = append(systems, of(q, 10*set.jobs, drain(10*set.jobs)))
		}
		return systems
	}
	return s
}

func drainDeletedScenario() scenario {
	return scenario{
		name:    "drain_deleted",
		about:   "As drain, but a job's row is deleted when it completes.",
		figures: []figure{{name: "jobs_per_second", unit: "jobs/s"}},
		systems: func(set settings) []system {
			queues := []queue{pgbell{deletes: true}, pgbell{concurrency: 1000, deletes: true}, graphileQueue(true)}
			if set.full {
				queues = append(queues, graphileQueue(false), gueQueue{})
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, set.jobs, drain(set.jobs)))
			}
			return append(systems, floors(set.jobs, true)...)
		},
	}
}

// floors are the grid of batches and connections.
func floors(jobs int, deletes bool) []system {
	var systems []system
	for _, connections := range []int{2, 4, 8} {
		for _, batch := range []int{100, 500, 1000} {
			q := loops{pgbell: pgbell{deletes: deletes}, batch: batch, connections: connections}
			s := of(q, jobs, drain(jobs))
			s.grid, s.template.key = true, fmt.Sprintf("floor, %d jobs", jobs)
			systems = append(systems, s)
		}
	}
	return systems
}

func drain(jobs int) func(context.Context, round, queue) (figures, error) {
	return func(ctx context.Context, r round, q queue) (figures, error) {
		perSecond, err := drainRate(ctx, r, q, load{recorder: newRecorder(jobs)}, jobs)
		return figures{"jobs_per_second": perSecond}, err
	}
}

// drainRate lets a worker run all jobs, and returns how many a second. A peer that is at it after a window is measured by what
// it ran until then: it gets the rate of the window, without the check of the database.
func drainRate(ctx context.Context, r round, q queue, load load, jobs int) (perSecond float64, err error) {
	err = attend(ctx, r, q, load, func(worker worker) error {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if q.role() == peer {
			limited, cancel = context.WithTimeout(ctx, r.set.window)
		}
		defer cancel()
		start := time.Now()
		if err := worker.work(ctx); err != nil {
			return err
		}
		end, err := settled(limited, r, q, load.recorder, worker, jobs)
		if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
			jobs, end, err = int(load.recorder.runs.Load()), time.Now(), nil
		}
		perSecond = float64(jobs) / end.Sub(start).Seconds()
		return err
	})
	return perSecond, err
}
