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
		d.gather(ctx)
		drain(d.lanes.freed)
		w := d.lanes.wants(time.Now())
		if w.nothing() || !d.mayClaim() {
			d.bell.Awake()
			d.rest(ctx, w, restPeriod)
			continue
		}
		claimed, more, err := d.claim(ctx, jobs, w)
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
		if more {
			d.bell.Awake()
			continue
		}
		if err := d.idle(ctx, jobs, claimed > 0, passed); err != nil {
			d.database.down("look for due jobs", err)
			failed.wait(ctx, nil)
		}
	}
}

// gatherFor bounds the wait for slots while a backlog is drained.
const gatherFor = 2 * time.Millisecond

// gather waits, while claims come back full, until half of the slots are free: a claim costs nearly as much for one job as
// for fifty. With jobs that take longer than gatherFor it has nothing to wait for.
func (d *Dispatcher) gather(ctx context.Context) {
	if !d.marks.known() {
		return
	}
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	for d.lanes.runs() > d.config.Concurrency/2 {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-d.lanes.freed:
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
	asleep, err := d.bell.Sleep(ctx, func(ctx context.Context, thorough bool) (bool, error) {
		claimed, more, err := d.claim(ctx, jobs, d.lanes.wants(time.Now()))
		if err != nil || claimed > 0 || more || !thorough {
			return claimed > 0 || more, err
		}
		next, err = d.look(ctx, w)
		return next <= 0, err
	})
	if err != nil || !asleep {
		return quiet(ctx, err)
	}
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

// claim claims what there is room for and starts it. More: there may be more than it has claimed. It goes on although ctx is done: a claim whose answer is not heard
// would leave jobs with a holder that doesn't know of them.
func (d *Dispatcher) claim(ctx, jobs context.Context, w wants) (claimed int, more bool, err error) {
	if w.nothing() {
		return 0, false, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.statementTimeout())
	defer cancel()
	d.claiming.Lock()
	defer d.claiming.Unlock()

	sent := time.Now()
	by, marked := d.marks.claim(w, sent)
	statement, arguments := d.sql.claim, []any{w.types, w.most, w.slots, d.worker.Load(), w.none, w.biggest}
	switch {
	case marked:
		statement = d.sql.claimMarked
		arguments = []any{by.types, by.most, by.slots, d.worker.Load(), w.none, w.biggest, by.levelTypes, by.priorities, by.dues, by.ids}
	case w.wildcard:
		statement = d.sql.claimAny
		arguments = append(arguments, w.any, w.others)
	}
	found, err := queryPlain(ctx, d.pool, d.scanJob, statement, arguments...)
	if err != nil {
		d.suspect(time.Now())
		return 0, false, fmt.Errorf("claim jobs: %w", err)
	}
	d.database.up()
	d.metrics.claim(len(found), time.Since(sent))
	if len(found) > 0 && w.none {
		d.beaten(sent)
	}
	if len(found) > 0 {
		d.reaperNudge.send() // where we found work, others may have too
	}
	answered := time.Now()
	for _, job := range found {
		d.start(jobs, job, answered)
	}
	return len(found), marked || len(found) >= w.slots, d.mark(ctx, w, found, marked)
}

// mark brings the marks up to date after a claim.
func (d *Dispatcher) mark(ctx context.Context, w wants, claimed []Job, marked bool) error {
	if len(claimed) < w.slots {
		d.marks.forget()
		return nil
	}
	if !marked {
		levels, err := d.levels(ctx, w)
		if err != nil {
			return err
		}
		d.marks.begin(levels, time.Now())
	}
	d.marks.note(claimed)
	return nil
}

// levels returns the types and priorities of the backlog; none if they are too many to keep marks for.
func (d *Dispatcher) levels(ctx context.Context, w wants) ([]level, error) {
	statement, arguments := d.sql.levels, []any{w.types, w.most, maxLevels + 1}
	if w.wildcard {
		statement = d.sql.levelsAny
		arguments = append(arguments, 0, false, 0, w.any, w.others)
	}
	found, err := queryPlain(ctx, d.pool, func(row pgx.CollectableRow) (l level, err error) {
		err = row.Scan(&l.jobType, &l.priority)
		return l, err
	}, statement, arguments...)
	if err != nil {
		return nil, fmt.Errorf("look for priorities: %w", err)
	}
	if len(found) > maxLevels {
		return nil, nil
	}
	return found, nil
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
