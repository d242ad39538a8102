package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	reapOften     = time.Second     // while other workers hold jobs, or may soon
	reapSometimes = 3 * time.Second // while we do, or where nobody can tell
	reapSeldom    = time.Minute     // otherwise
)

// suspect is a worker that holds jobs, as one look saw it.
type suspect struct {
	worker    int32
	heartbeat time.Time     // by the database's clock
	dead      bool          // was declared so before
	leaseTime time.Duration // without a heartbeat: then it is dead
	deadAfter time.Duration // of missing presence
	absent    bool          // its presence is missing
	server    time.Time     // when the server that says so was started
}

// reaper is the state of reapLoop.
type reaper struct {
	*Dispatcher
	suspicions suspicions
	server     time.Time // when the server was started that answered the last look at suspects
	moved      time.Time // when another one did: a standby took over
	calm       bool      // nobody held jobs at the last look
	watch      watch
}

// reapLoop gives the jobs of dead workers back, until ctx is done. It runs in every sidecar and needs no leader: the
// worker's row is locked, and looked at again, before anything is taken from it. A worker is dead when no heartbeat of it has
// come for its lease time, or when its presence was missing at each look for its dead_after and no heartbeat came meanwhile.
//
// It looks each second or so while others hold jobs, more often while one of them is missing, and within a second of a
// nudge: after rings and claims of our own. Where a look finds that nobody else holds jobs, it also finds when somebody may:
//
//   - a job of any type that a living worker handles is due, or will be (a timer or a retry that only others know of, a
//     breaker's probe, a claim under way, rows that were inserted silently while we were awake): a second after that;
//   - a job that no worker holds (claim_jobs, 202) comes to the end of its time: then;
//   - we hold jobs, which may pass to nobody (202), or there are more types than a look goes through (1000): three seconds;
//   - otherwise a minute. What is pending later than the look rings, as does a retry, retry_job, a resumed type and the start of
//     a sidecar, which may have handlers that nobody had.
//
// So only these are noticed as late as a minute: jobs that were set to processing by hand, or to pending with the bell switched
// off (a two-phase commit without ring_jobs), and of a type that only others handle, whose holder then dies; jobs below the first
// hundred priorities of their type; and all that happens while we are deaf, of types that we don't poll for.
func (d *Dispatcher) reapLoop(ctx context.Context) {
	defer d.reaping.release()
	r := reaper{Dispatcher: d, suspicions: suspicions{}, calm: true}
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.reaperNudge:
			// Others may hold jobs soon. Not at once, as those who claim them have not committed yet.
			if soon := time.Now().Add(reapOften); soon.Before(due) {
				due = soon
				timer.Reset(reapOften)
			}
			continue
		case <-timer.C:
		}
		next := r.look(ctx)
		if next > reapSometimes {
			d.reaping.release()
		}
		due = time.Now().Add(next)
		timer.Reset(next)
	}
}

// look looks once, and returns how long until the next look.
func (r *reaper) look(ctx context.Context) time.Duration {
	now := time.Now()
	keepUp := !now.Before(r.watch.due)
	// A prospect passes all the entries that a drain of ours leaves dead in the index: not while one goes on.
	busy := r.lanes.holds() > 0
	seen, err := r.survey(ctx, r.calm && !busy, keepUp)
	if err != nil {
		if keepUp {
			r.watch.again(now) // what the chores may have failed by must not keep jobs from being reaped
		}
		if ctx.Err() == nil {
			r.database.down(doSurvey, err)
		}
		r.suspicions.blinded()
		return reapOften
	}
	r.database.up(doSurvey)
	if keepUp {
		r.watch.again(now)
		r.warnUnhandled(seen.prospect.unhandled)
		r.warnHorizon(&r.watch, seen.upkeep.horizon, now)
		r.walk.offer(seen.upkeep.table)
	}
	next := min(r.judge(ctx, seen.suspects), r.reapHeld(ctx, seen.reaped))
	r.calm = next == reapSeldom
	switch {
	case r.calm && busy:
		next = reapSometimes
	case r.calm && seen.prospect == nil:
		next = reapOften // to ask then
	case r.calm:
		next = seen.prospect.wait()
	}
	switch {
	case next == reapSeldom:
		return next + rand.N(next/8)
	case next < reapOften:
		return next // a suspicion is to be looked after just when it is due
	default:
		return next - rand.N(reapOften/2)
	}
}

// judge reaps the jobs of those suspects that are dead.
func (r *reaper) judge(ctx context.Context, suspects []suspect) (next time.Duration) {
	next = reapSeldom
	now := time.Now()
	r.suspicions.keep(suspects)
	for _, s := range suspects {
		s.absent = s.absent && !r.justMoved(s, now)
		known := r.suspicions.note(s, now)
		left, expired := known.verdictIn(s, now)
		next = min(next, reapOften)
		if !known.absent.IsZero() {
			next = min(next, max(s.deadAfter/3, 50*time.Millisecond))
		}
		if left > 0 && !s.dead {
			next = min(next, left)
			continue
		}
		if err := r.reapWorker(ctx, s, expired); err != nil && ctx.Err() == nil {
			r.database.down(doReap, err)
		}
	}
	return next
}

// justMoved: the server is another one than before, and workers have yet to find it. For a lease time sessions, and presence with them,
// are missing there for that reason. A server that was restarted says so itself, to those too who didn't know it before.
func (r *reaper) justMoved(s suspect, now time.Time) bool {
	if !r.server.IsZero() && !r.server.Equal(s.server) {
		r.moved = now
	}
	r.server = s.server
	return !r.moved.IsZero() && now.Sub(r.moved) < s.leaseTime
}

func (d *Dispatcher) reapWorker(ctx context.Context, s suspect, expired bool) error {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	if !s.dead {
		marked, err := queryUnder(ctx, &d.reaping, d.sql.briefly, pgx.RowTo[bool], d.sql.markDead, s.worker, s.heartbeat)
		if err != nil {
			return fmt.Errorf("mark worker dead: %w", err)
		}
		if len(marked) == 0 {
			return nil // it lives after all, or another reaper was first: then the next look sees it as dead
		}
		d.log.Warn().Int32("worker_id", s.worker).Bool("heartbeat_expired", expired).Msg("worker is dead, giving its jobs back")
	}
	return d.reapBatches(ctx, d.sql.reapWorker, s.worker)
}

// reapHeld goes on where a survey has given back jobs past their held_until.
func (r *reaper) reapHeld(ctx context.Context, reaped []bool) (next time.Duration) {
	if len(reaped) == 0 {
		return reapSeldom
	}
	r.countReaped(len(reaped))
	ctx, cancel := context.WithTimeout(ctx, r.statementTimeout())
	defer cancel()
	if err := r.reapBatches(ctx, r.sql.reapHeld); err != nil && ctx.Err() == nil {
		r.database.down(doReap, err)
	}
	return reapOften
}

// reapBatches repeats a reaping statement until it finds no more.
func (d *Dispatcher) reapBatches(ctx context.Context, statement string, arguments ...any) error {
	for {
		again, err := queryUnder(ctx, &d.reaping, d.sql.plain, pgx.RowTo[bool], statement, arguments...)
		if err != nil {
			return fmt.Errorf("reap jobs: %w", err)
		}
		if len(again) == 0 {
			d.database.up(doReap)
			return nil
		}
		d.countReaped(len(again))
	}
}

func (d *Dispatcher) countReaped(jobs int) {
	d.metrics.reaped.Add(float64(jobs))
	d.log.Warn().Int("jobs", jobs).Msg("reaped jobs whose holder is gone")
}
