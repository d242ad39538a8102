package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// claimLoop claims and starts jobs until ctx is done. jobs is the context that they run under.
func (d *Dispatcher) claimLoop(ctx, jobs context.Context) {
	failed := newPause(50*time.Millisecond, time.Second)
	passed := newPause(5*time.Millisecond, time.Second)
	for ctx.Err() == nil {
		drain(d.lanes.freed)
		w := d.lanes.wants(time.Now())
		if w.nothing() || !d.mayClaim() {
			d.rest(ctx, w, restPeriod)
			continue
		}
		claimed, err := d.claim(ctx, jobs, w)
		if err != nil {
			d.database.down("claim jobs", err)
			failed.wait(ctx, nil)
			continue
		}
		failed.reset()
		d.readyOnce.Do(func() { close(d.ready) })
		if claimed > 0 {
			passed.reset()
		}
		if claimed >= w.slots {
			continue // a full claim: there may be more
		}
		if err := d.idle(ctx, jobs, claimed > 0, passed); err != nil {
			d.database.down("look for due jobs", err)
			failed.wait(ctx, nil)
		}
	}
}

// restPeriod is how long to wait at most where a token or a timer should end the wait.
const restPeriod = time.Second

// idle waits for work after a claim that took all that it found. The claim may have used up the room for a type, which then
// is none to look for.
func (d *Dispatcher) idle(ctx, jobs context.Context, found bool, passed *pause) error {
	w := d.lanes.wants(time.Now())
	if w.nothing() {
		return nil
	}
	next, err := d.look(ctx, w)
	if err != nil {
		return quiet(ctx, err)
	}
	if next <= 0 {
		if !found {
			// Due and not claimed: another transaction has it locked, and may let go of it without a ring.
			passed.wait(ctx, d.bell.Rings())
		}
		return nil
	}
	asleep, err := d.bell.Sleep(ctx, func(ctx context.Context) (bool, error) {
		claimed, err := d.claim(ctx, jobs, d.lanes.wants(time.Now()))
		if err != nil || claimed > 0 {
			return claimed > 0, err
		}
		next, err = d.look(ctx, w)
		return next <= 0, err
	})
	if err != nil || !asleep {
		return quiet(ctx, err)
	}
	defer d.bell.Awake()
	passed.reset()
	d.rest(ctx, w, next)
	return nil
}

// quiet drops an error that comes of ctx being done.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// rest waits for a ring, for a freed slot where slots are short, until the next job is due or the next breaker lets a probe
// through, and at most until the fallback poll.
func (d *Dispatcher) rest(ctx context.Context, w wants, next time.Duration) {
	poll := d.config.Poll
	if d.bell.Deaf() {
		poll = d.config.PollDeaf
	}
	next = min(next, poll)
	if !w.probeAt.IsZero() {
		next = min(next, time.Until(w.probeAt))
	}
	freed := d.lanes.freed
	if !w.limited && !w.nothing() {
		freed = nil
	}
	timer := time.NewTimer(max(next, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-d.bell.Rings():
		d.reaperNudge.send()
	case <-freed:
	case <-timer.C:
	}
}

// claim claims what there is room for and starts it. It goes on although ctx is done: a claim whose answer is not heard
// would leave jobs with a holder that doesn't know of them.
func (d *Dispatcher) claim(ctx, jobs context.Context, w wants) (int, error) {
	if w.nothing() {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.statementTimeout())
	defer cancel()
	d.claiming.Lock()
	defer d.claiming.Unlock()

	sent := time.Now()
	arguments := []any{w.types, w.most, w.slots, d.worker.Load(), w.none, w.biggest}
	statement := d.sql.claim
	if w.wildcard {
		statement = d.sql.claimAny
		arguments = append(arguments, w.any, w.others)
	}
	found, err := queryPlain(ctx, d.pool, d.scanJob, statement, arguments...)
	if err != nil {
		d.suspect(time.Now())
		return 0, fmt.Errorf("claim jobs: %w", err)
	}
	d.database.up()
	d.metrics.claim(len(found), time.Since(sent))
	if len(found) > 0 && w.none {
		d.beaten(sent)
	}
	answered := time.Now()
	for _, job := range found {
		d.start(jobs, job, answered)
	}
	return len(found), nil
}

func (d *Dispatcher) scanJob(row pgx.CollectableRow) (Job, error) {
	j := Job{completeTx: d.sql.completeTx}
	var payload, metadata *string
	var timeout, lateness float64
	err := row.Scan(&j.id, &j.Type, &payload, &j.size, &j.Priority, &j.Attempt, &j.MaxAttempts, &j.CreatedAt, &j.ScheduledFor,
		&j.lease, &j.Crashes, &metadata, &timeout, &lateness)
	if err != nil {
		return Job{}, err
	}
	j.ID, j.Lease = j.id.String(), j.lease.String()
	if payload != nil {
		j.Payload = json.RawMessage(*payload)
	}
	if metadata != nil {
		j.Metadata = json.RawMessage(*metadata)
	}
	j.timeout, j.lateness = seconds(timeout), seconds(lateness)
	return j, nil
}

// look returns how long it is until the next job is due, not positive if one is; far ahead if none is waiting.
func (d *Dispatcher) look(ctx context.Context, w wants) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	statement, arguments := d.sql.look, []any{w.types, w.most}
	if w.wildcard {
		statement = d.sql.lookAny
		arguments = append(arguments, 0, 0, false, 0, w.any, w.others)
	}
	found, err := queryPlain(ctx, d.pool, pgx.RowTo[*float64], statement, arguments...)
	if err != nil {
		return 0, fmt.Errorf("look for due jobs: %w", err)
	}
	if len(found) == 0 || found[0] == nil {
		return 24 * time.Hour, nil
	}
	return seconds(*found[0]), nil
}

// seconds turns the database's seconds into a Duration, within what one can hold.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, -1e9), 1e9) * float64(time.Second))
}

func drain(tokens <-chan struct{}) {
	select {
	case <-tokens:
	default:
	}
}
