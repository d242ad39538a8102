package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// flatCase is a table that must not make a claim dearer.
type flatCase struct {
	name string
	// fill inserts $1 rows besides the jobs in front.
	fill string
	rows func(settings) int
	// kind of the handler; "" is that of the jobs in front.
	kind string
	// endless: jobs are left after those in front, so that none is ever alone.
	endless bool
}

const smallTable = "small table"

// flatCases: sizes of the full run; the short one has a tenth of the rows, but as many types.
func flatCases() []flatCase {
	many := func(times int) func(settings) int {
		return func(set settings) int {
			if set.full {
				times *= 10
			}
			return times * set.jobs
		}
	}
	return []flatCase{
		{name: smallTable},
		{name: "many pending rows behind", fill: behindSQL, rows: many(10), endless: true},
		{name: "rows of a higher priority due in the future", fill: futureSQL, rows: many(1)},
		{name: "pending rows of foreign types", fill: foreignSQL, rows: many(1)},
		{name: "finished rows kept", fill: finishedSQL, rows: many(10)},
		{name: "many types under a * handler", fill: typesSQL, rows: func(set settings) int { return set.jobs / 10 }, kind: "*"},
	}
}

// flatScenario: a claim costs what it claims, whatever else is in the table.
func flatScenario() scenario {
	return scenario{
		name: "flat",
		about: "Jobs in front are drained in a table that holds much else. Mean time of a claim of up to 100 jobs, by the sidecar's own " +
			"metric; the rate of the drain; pickup p50 of single jobs afterwards.",
		figures: []figure{
			{name: "claim", unit: "ms per claim", digits: 2, less: true}, {name: "jobs_per_second", unit: "jobs/s"},
			{name: "pickup", unit: "ms pickup p50", digits: 2, less: true}, {name: "rows", unit: "rows besides"},
		},
		systems: func(set settings) []system {
			var systems []system
			for _, c := range flatCases() {
				systems = append(systems, c.system(set))
			}
			return systems
		},
	}
}

func (c flatCase) system(set settings) system {
	front, rows, q := set.jobs/5, 0, pgbell{kind: c.kind}
	if c.rows != nil {
		rows = c.rows(set)
	}
	s := of(q, front, func(ctx context.Context, r round, _ queue) (figures, error) { return c.run(ctx, r, q, front, rows) })
	s.name, s.tuning = c.name, ""
	s.template = template{key: c.name, make: func(ctx context.Context, url string) error {
		if err := q.install(ctx, url, 0); err != nil {
			return err
		}
		if err := executeFilled(ctx, url, c.fill, rows); err != nil {
			return err
		}
		return executeFilled(ctx, url, frontSQL, front)
	}}
	return s
}

func (c flatCase) run(ctx context.Context, r round, q pgbell, front, rows int) (figures, error) {
	singles := int(5 * r.set.window.Seconds())
	recorder, from := newRecorder(front+singles), make([]atomic.Int64, front+singles)
	sidecar, err := q.sidecar(ctx, r.url, load{recorder: recorder}, pgbellConnections)
	if err != nil {
		return nil, err
	}
	got := figures{"rows": float64(rows)}
	err = sidecar.work(ctx)
	if err == nil {
		err = c.drainFront(ctx, sidecar, recorder, front, got)
	}
	expected := front
	if err == nil && !c.endless {
		expected += singles
		err = insertSingles(ctx, r, recorder, from, front)
		got["pickup"] = quantile(recorder.since(from), 0.5)
	}
	if err := errors.Join(err, sidecar.stop()); err != nil {
		return nil, err
	}
	conn, closeConn, err := connect(ctx, r.url)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	return got, errors.Join(recorder.verify(expected), expect(ctx, conn, frontCompletedSQL, expected))
}

func (c flatCase) drainFront(ctx context.Context, sidecar *embedded, recorder *recorder, front int, got figures) error {
	start := time.Now()
	if err := recorder.wait(ctx, front); err != nil {
		return err
	}
	got["jobs_per_second"] = float64(front) / time.Since(start).Seconds()
	took, _, err := sidecar.metric("pgbell_claim_seconds", "", "", true)
	if err != nil {
		return err
	}
	claims, found, err := sidecar.metric("pgbell_claim_seconds", "", "", false)
	if err == nil && (!found || claims == 0) {
		err = errors.New("the sidecar counts no claims")
	}
	got["claim"] = 1000 * took / max(1, claims)
	return err
}

// insertSingles inserts jobs one at a time, each when the one before has run.
func insertSingles(ctx context.Context, r round, recorder *recorder, from []atomic.Int64, first int) error {
	producer, err := pgbell{}.producer(ctx, r.url, 1)
	if err != nil {
		return err
	}
	defer producer.close()
	for n := first; n < len(from); n++ {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		if err := producer.insert(ctx, n, time.Time{}); err != nil {
			return err
		}
		from[n].Store(time.Now().UnixNano())
		if err := recorder.wait(ctx, n+1); err != nil {
			return fmt.Errorf("single job: %w", err)
		}
	}
	return nil
}
