package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/listener"
)

// drainScenario: pending jobs that cost nothing to run. What is left is what the dispatcher itself costs.
func drainScenario() scenario {
	s := scenario{
		name:    "drain",
		about:   "All jobs are due at the start; running one costs nothing. Time from the start of the sidecar until the last job is completed in the database.",
		payload: `{}`,
		filled:  true,
		figures: []figure{{name: "jobs_per_second", unit: "jobs/s", ratio: true}},
	}
	for _, concurrency := range []int{100, 1000} {
		s.systems = append(s.systems, system{
			name: fmt.Sprintf("pgbell, concurrency %d", concurrency),
			run: func(ctx context.Context, r round) (map[string]float64, error) {
				return drainPgbell(ctx, r, concurrency)
			},
		})
	}
	for _, batch := range []int{100, 500, 1000} {
		s.systems = append(s.systems, system{
			name:  fmt.Sprintf("floor: %d pgx loops, batches of %d", floorLoops, batch),
			run:   func(ctx context.Context, r round) (map[string]float64, error) { return drainFloor(ctx, r, batch) },
			floor: true,
		})
	}
	return s
}

// noop is a handler that does nothing but count.
type noop struct{ runs atomic.Int64 }

func (n *noop) Run(context.Context, dispatch.Job) dispatch.Result {
	n.runs.Add(1)
	return dispatch.Done(nil)
}

// drainPgbell runs a whole sidecar in this process, with its listener, as an application that embeds pgbell would.
func drainPgbell(ctx context.Context, r round, concurrency int) (map[string]float64, error) {
	pool, err := openPool(ctx, r.databaseURL, 8)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	bell, err := listener.New(listener.Config{URL: r.databaseURL})
	if err != nil {
		return nil, err
	}
	handler := &noop{}
	dispatcher, err := dispatch.New(pool, dispatch.Config{
		Types: map[string]dispatch.Type{"bench": {Handler: handler}}, Concurrency: concurrency, Bell: bell, Presence: bell,
	})
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	defer stop()
	var both sync.WaitGroup
	var errs [2]error
	start := time.Now()
	both.Go(func() { errs[0] = bell.Run(running) })
	both.Go(func() { errs[1] = dispatcher.Run(running) })
	drainedErr := waitDrained(ctx, pool)
	took := time.Since(start)
	stop()
	both.Wait()
	if err := errors.Join(drainedErr, errs[0], errs[1]); err != nil {
		return nil, err
	}
	if runs := handler.runs.Load(); runs != int64(r.jobs) {
		return nil, fmt.Errorf("%d jobs were run %d times", r.jobs, runs)
	}
	return drained(ctx, pool, r.jobs, took)
}

// The floor does the same to the rows: the same columns, the same commits before and after the run, but nothing else: one
// type, no limits, no heartbeat, no retries.
const floorLoops = 2

const floorClaimSQL = `WITH picked AS MATERIALIZED (
  SELECT ctid FROM jobs WHERE status = 'pending' AND type = $1 AND scheduled_for <= now()
  ORDER BY priority DESC, scheduled_for, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET status = 'processing', attempts = attempts + 1, started_at = now(), updated_at = now(),
  lease = gen_random_uuid(), worker_id = 1, held_until = NULL
WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked)) AND status = 'pending'
RETURNING id, lease, type, payload::text, priority, attempts, max_attempts, created_at, scheduled_for`

// status as text: else the planner may take the index on processing rows, full of dead entries in a drain, for the
// cheapest way to a few rows.
const floorSettleSQL = `UPDATE jobs SET status = 'completed', completed_at = now(), updated_at = now(), result = NULL,
  lease = NULL, worker_id = NULL, held_until = NULL
WHERE id = ANY ($1::uuid[]) AND lease = ANY ($2::uuid[]) AND status::text = 'processing'`

func drainFloor(ctx context.Context, r round, batch int) (map[string]float64, error) {
	pool, err := openPool(ctx, r.databaseURL, floorLoops)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var loops sync.WaitGroup
	errs := make([]error, floorLoops)
	start := time.Now()
	for i := range errs {
		loops.Go(func() {
			for claimed := 1; claimed > 0 && errs[i] == nil; {
				claimed, errs[i] = floorBatch(ctx, pool, batch)
			}
		})
	}
	loops.Wait()
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return drained(ctx, pool, r.jobs, took)
}

func floorBatch(ctx context.Context, pool *pgxpool.Pool, batch int) (int, error) {
	rows, err := pool.Query(ctx, floorClaimSQL, "bench", batch)
	if err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	defer rows.Close()
	var ids, leases []pgtype.UUID
	for rows.Next() {
		var id, lease pgtype.UUID
		var kind, payload string
		var priority, attempts, most int
		var created, scheduled time.Time
		if err := rows.Scan(&id, &lease, &kind, &payload, &priority, &attempts, &most, &created, &scheduled); err != nil {
			return 0, fmt.Errorf("read claim: %w", err)
		}
		ids, leases = append(ids, id), append(leases, lease)
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	tag, err := pool.Exec(ctx, floorSettleSQL, ids, leases)
	if err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	if tag.RowsAffected() != int64(len(ids)) {
		return 0, fmt.Errorf("settled %d of %d", tag.RowsAffected(), len(ids))
	}
	return len(ids), nil
}

// Both probes use partial indexes, and so cost next to nothing while jobs are left.
const busySQL = `SELECT EXISTS (SELECT FROM jobs WHERE status = 'pending' AND type = 'bench') OR EXISTS (SELECT FROM jobs WHERE status = 'processing')`

// waitDrained returns when no job is pending or processing.
func waitDrained(ctx context.Context, pool *pgxpool.Pool) error {
	for {
		var busy bool
		if err := pool.QueryRow(ctx, busySQL).Scan(&busy); err != nil {
			return fmt.Errorf("look for jobs: %w", err)
		}
		if !busy {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the last job: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// drained checks that each job was run once and completed, and says how fast.
func drained(ctx context.Context, pool *pgxpool.Pool, jobs int, took time.Duration) (map[string]float64, error) {
	var good int
	err := pool.QueryRow(ctx, "SELECT count(*) FROM jobs WHERE status = 'completed' AND attempts = 1 AND lease IS NULL").Scan(&good)
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	if good != jobs {
		return nil, fmt.Errorf("%d of %d jobs were run once and completed", good, jobs)
	}
	return map[string]float64{"jobs_per_second": float64(jobs) / took.Seconds()}, nil
}

func openPool(ctx context.Context, url string, size int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("configure pool: %w", err)
	}
	config.MaxConns, config.MinConns = size, size
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return pool, nil
}
