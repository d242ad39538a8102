package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const fleetSize = 8

// fleetScenario: one ring, and many sidecars that hear it.
func fleetScenario() scenario {
	return scenario{
		name: "fleet_lone",
		about: fmt.Sprintf("Single jobs, every 100 ms, for %d sidecars asleep. Claims of all sidecars per job, and how many of them found "+
			"nothing; pickup of the jobs.", fleetSize),
		figures: []figure{
			{name: "wasted", unit: "wasted claims/job", digits: 2, less: true}, {name: "claims", unit: "claims/job", digits: 2, less: true},
			{name: "p50", unit: "ms pickup p50", digits: 2, less: true}, {name: "p99", unit: "ms pickup p99", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			all := of(pgbell{}, 0, func(ctx context.Context, r round, _ queue) (figures, error) { return loneJobs(ctx, r, fleetSize) })
			one := of(pgbell{}, 0, func(ctx context.Context, r round, _ queue) (figures, error) { return loneJobs(ctx, r, 1) })
			all.name, one.name = allHandle, oneHandles
			return []system{all, one}
		},
	}
}

// Names that the goals know.
const (
	allHandle  = "8 sidecars with a handler"
	oneHandles = "8 sidecars, 7 of them without a handler"
)

// fleet runs sidecars, the first so many of which have a handler for the jobs, while body measures.
func fleet(ctx context.Context, r round, size, handling int, recorder *recorder, body func([]*embedded) error) (err error) {
	var all []*embedded
	defer func() {
		var stops sync.WaitGroup
		errs := make([]error, len(all))
		for i, sidecar := range all {
			stops.Go(func() { errs[i] = sidecar.stop() })
		}
		stops.Wait()
		err = errors.Join(err, errors.Join(errs...))
	}()
	for i := range size {
		q := pgbell{}
		if i >= handling {
			q.kind = "other"
		}
		sidecar, err := q.sidecar(ctx, r.url, load{recorder: recorder}, 4)
		if err != nil {
			return err
		}
		all = append(all, sidecar)
	}
	for _, sidecar := range all {
		if err := sidecar.work(ctx); err != nil {
			return err
		}
	}
	return body(all)
}

func loneJobs(ctx context.Context, r round, handling int) (got figures, err error) {
	jobs := int(10 * r.set.half().Seconds())
	recorder := newRecorder(warmUps + jobs)
	producer, err := pgbell{}.producer(ctx, r.url, 1)
	if err != nil {
		return nil, err
	}
	defer producer.close()
	err = fleet(ctx, r, fleetSize, handling, recorder, func(all []*embedded) error {
		for _, sidecar := range all {
			if err := sidecar.asleep(ctx); err != nil {
				return err
			}
		}
		got, err = countClaims(ctx, all, recorder, producer, jobs)
		if err != nil {
			return err
		}
		_, err = settled(ctx, r, pgbell{}, recorder, all[0], warmUps+jobs)
		return err
	})
	return got, err
}

func countClaims(ctx context.Context, all []*embedded, recorder *recorder, producer producer, jobs int) (figures, error) {
	late := make([]float64, 0, jobs)
	var before, wastedBefore float64
	for n := range warmUps + jobs {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
		if n == warmUps {
			var err error
			if before, wastedBefore, err = countAll(all); err != nil {
				return nil, err
			}
		}
		if err := producer.insert(ctx, n, time.Time{}); err != nil {
			return nil, err
		}
		inserted := time.Now()
		if err := recorder.wait(ctx, n+1); err != nil {
			return nil, err
		}
		if n >= warmUps {
			late = append(late, max(0, float64(recorder.starts[n].Load()-inserted.UnixNano())/1e6))
		}
	}
	// The others may still be at it.
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return nil, err
	}
	after, wastedAfter, err := countAll(all)
	slices.Sort(late)
	return figures{
		"claims": (after - before) / float64(jobs), "wasted": (wastedAfter - wastedBefore) / float64(jobs),
		"p50": quantile(late, 0.5), "p99": quantile(late, 0.99),
	}, err
}

// countAll counts the claims of all sidecars so far, and those that found nothing.
func countAll(all []*embedded) (claims, wasted float64, err error) {
	for _, sidecar := range all {
		count, found, err := sidecar.metric("pgbell_claims_total", "", "", false)
		if err == nil && !found {
			err = errors.New("the sidecar counts no claims")
		}
		if err != nil {
			return 0, 0, err
		}
		none, _, err := sidecar.metric("pgbell_claims_total", "result", "none", false)
		if err != nil {
			return 0, 0, err
		}
		claims, wasted = claims+count, wasted+none
	}
	return claims, wasted, nil
}

// fleetDrainScenario: many sidecars at one backlog.
func fleetDrainScenario() scenario {
	return scenario{
		name:  "fleet_drain",
		about: "A drain by several sidecars with the defaults, in one process. Share is the most that one of them ran to the least.",
		figures: []figure{
			{name: "jobs_per_second", unit: "jobs/s"}, {name: "share", unit: "max / min share", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			var systems []system
			for _, size := range []int{1, 2, fleetSize} {
				s := of(pgbell{}, set.jobs, func(ctx context.Context, r round, _ queue) (figures, error) {
					return drainByFleet(ctx, r, size, r.set.jobs)
				})
				if s.name = "1 sidecar"; size > 1 {
					s.name = fmt.Sprintf("%d sidecars", size)
				}
				systems = append(systems, s)
			}
			return systems
		},
	}
}

func drainByFleet(ctx context.Context, r round, size, jobs int) (figures, error) {
	recorder, got := newRecorder(jobs), figures{}
	start := time.Now()
	err := fleet(ctx, r, size, size, recorder, func(all []*embedded) error {
		end, err := settled(ctx, r, pgbell{}, recorder, all[0], jobs)
		if err != nil {
			return err
		}
		got["jobs_per_second"] = float64(jobs) / end.Sub(start).Seconds()
		var shares []float64
		for _, sidecar := range all {
			share, _, err := sidecar.metric("pgbell_claim_jobs_total", "", "", false)
			if err != nil {
				return err
			}
			shares = append(shares, share)
		}
		got["share"] = slices.Max(shares) / max(1, slices.Min(shares))
		return nil
	})
	return got, err
}
