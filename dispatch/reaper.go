package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	reapOften  = time.Second     // while other workers hold jobs, and soon after a ring
	reapSeldom = 3 * time.Second // otherwise: jobs can become due without a ring that we hear
)

// suspicion is what the reaper remembers of a worker whose presence it missed.
type suspicion struct {
	since     time.Time // of the first look that missed it, by our clock
	heartbeat time.Time // then, by the database's
}

// suspect is a worker that holds jobs, as one look saw it.
type suspect struct {
	worker    int32
	heartbeat time.Time
	dead      bool          // was declared so before
	expired   bool          // no heartbeat for a lease time
	deadAfter time.Duration // of missing presence
	absent    bool
}

// reapLoop gives the jobs of dead workers back, until ctx is done. It runs in every sidecar and needs no leader: the
// worker's row is locked, and looked at again, before anything is taken from it. A worker is dead when its heartbeat is older
// than its lease time, or when its presence was missing at each look for its dead_after and no heartbeat came meanwhile.
func (d *Dispatcher) reapLoop(ctx context.Context) {
	suspicions := map[int32]suspicion{}
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.reaperNudge:
			// A ring: others may hold jobs soon. Not at once, as those who claim them have not committed yet.
			if soon := time.Now().Add(reapOften); soon.Before(due) {
				due = soon
				timer.Reset(reapOften)
			}
			continue
		case <-timer.C:
		}
		next := d.reap(ctx, suspicions)
		due = time.Now().Add(next)
		timer.Reset(next)
	}
}

// reap looks once, and returns how long until the next look.
func (d *Dispatcher) reap(ctx context.Context, suspicions map[int32]suspicion) time.Duration {
	seen, err := d.suspects(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.database.down("look for dead workers", err)
		}
		clear(suspicions) // what was missed while the database was out of reach proves nothing
		return reapOften
	}
	next := reapSeldom
	if len(seen) > 0 {
		next = reapOften
	}
	now := time.Now()
	missing := map[int32]suspicion{}
	for _, s := range seen {
		if s.absent && !s.dead && !s.expired {
			first, again := suspicions[s.worker]
			if !again || !first.heartbeat.Equal(s.heartbeat) {
				first = suspicion{since: now, heartbeat: s.heartbeat}
			}
			missing[s.worker] = first
			next = min(next, max(s.deadAfter/3, 50*time.Millisecond))
			if now.Sub(first.since) < s.deadAfter {
				continue
			}
		} else if !s.dead && !s.expired {
			continue
		}
		if err := d.reapWorker(ctx, s); err != nil && ctx.Err() == nil {
			d.database.down("reap jobs", err)
		}
		next = min(next, reapOften)
	}
	clear(suspicions)
	for worker, s := range missing {
		suspicions[worker] = s
	}
	if err := d.reapHeld(ctx); err != nil && ctx.Err() == nil {
		d.database.down("reap jobs", err)
	}
	return next/2 + rand.N(next/2+1)
}

func (d *Dispatcher) suspects(ctx context.Context) ([]suspect, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	return queryPlain(ctx, d.pool, func(row pgx.CollectableRow) (suspect, error) {
		var s suspect
		var deadAfter float64
		err := row.Scan(&s.worker, &s.heartbeat, &s.dead, &s.expired, &deadAfter, &s.absent)
		s.deadAfter = seconds(deadAfter)
		return s, err
	}, d.sql.suspects, d.worker.Load())
}

func (d *Dispatcher) reapWorker(ctx context.Context, s suspect) error {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	if !s.dead {
		rows, err := d.pool.Query(ctx, d.sql.markDead, s.worker, s.heartbeat)
		if err != nil {
			return fmt.Errorf("mark worker dead: %w", err)
		}
		marked, err := pgx.CollectRows(rows, pgx.RowTo[bool])
		if err != nil {
			return fmt.Errorf("mark worker dead: %w", err)
		}
		if len(marked) == 0 {
			return nil // it lives after all, or another reaper was first: then the next look sees it as dead
		}
		d.log.Warn().Int32("worker_id", s.worker).Bool("heartbeat_expired", s.expired).Msg("worker is dead, giving its jobs back")
	}
	return d.reapBatches(ctx, d.sql.reapWorker, s.worker)
}

func (d *Dispatcher) reapHeld(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	return d.reapBatches(ctx, d.sql.reapHeld)
}

// reapBatches repeats a reaping statement until it finds no more.
func (d *Dispatcher) reapBatches(ctx context.Context, statement string, arguments ...any) error {
	for {
		again, err := queryPlain(ctx, d.pool, pgx.RowTo[bool], statement, arguments...)
		if err != nil {
			return fmt.Errorf("reap jobs: %w", err)
		}
		if len(again) == 0 {
			return nil
		}
		d.metrics.reaped.Add(float64(len(again)))
		d.log.Warn().Int("jobs", len(again)).Msg("reaped jobs whose holder is gone")
	}
}
