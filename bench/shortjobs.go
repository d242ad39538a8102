package main

import (
	"context"
	"fmt"
	"time"
)

// shortJobsScenario: handlers that take a while, and a number of them at once.
func shortJobsScenario(each time.Duration, concurrency int) scenario {
	return scenario{
		name:  fmt.Sprintf("jobs_of_%dms_%d", each.Milliseconds(), concurrency),
		about: fmt.Sprintf("Jobs that wait for %s, %d at once; due at the start. The ideal is %d / %s.", each, concurrency, concurrency, each),
		figures: []figure{
			{name: "jobs_per_second", unit: "jobs/s"}, {name: "share", unit: "% of the ideal"},
		},
		systems: func(set settings) []system {
			ideal := float64(concurrency) / each.Seconds()
			// About 3 s of work, at the rates that a queue reaches.
			jobs := max(concurrency, int(min(float64(set.jobs), 3*ideal, 3*15000)*set.window.Seconds()/10))
			queues := []queue{pgbell{}, riverQueue{tuned: true}}
			if set.full {
				queues = append(queues, riverQueue{}, graphileQueue(true), bossQueue(true))
				if concurrency <= 64 {
					queues = append(queues, gueQueue{})
				}
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, jobs, func(ctx context.Context, r round, q queue) (figures, error) {
					return shortJobs(ctx, r, q, jobs, each, concurrency)
				}))
			}
			return systems
		},
	}
}

func shortJobs(ctx context.Context, r round, q queue, jobs int, each time.Duration, concurrency int) (figures, error) {
	perSecond, err := drainRate(ctx, r, q, load{recorder: newRecorder(jobs), each: each, concurrency: concurrency}, jobs)
	return figures{"jobs_per_second": perSecond, "share": 100 * perSecond * each.Seconds() / float64(concurrency)}, err
}
