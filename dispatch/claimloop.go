package dispatch

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// restPeriod is how long to wait at most where a token or a timer should end the wait.
	restPeriod = time.Second
	// gatherFor bounds the wait for slots while a backlog is drained.
	gatherFor = 2 * time.Millisecond
	// How long after a walk the next one is made, at least, so that what claims by levels miss is not late: while a backlog
	// is drained; while the bell polls; and while it rings and claims find jobs.
	walkDraining = 250 * time.Millisecond
	walkPolling  = 50 * time.Millisecond
	walkRung     = 100 * time.Millisecond
)

// claimLoop claims and starts jobs until ctx is done. jobs is the context that they run under; it is never done.
func (d *Dispatcher) claimLoop(ctx, jobs context.Context) {
	defer d.claims.release()
	failed := newPause(50*time.Millisecond, time.Second)
	for ctx.Err() == nil {
		if err := d.turn(ctx, jobs); err != nil && ctx.Err() == nil {
			d.database.down(DoingClaim, err)
			d.levels.asked = true
			failed.wait(ctx, nil)
			continue
		}
		failed.reset()
	}
}

// turn claims once what there is room for, and waits where there is no room, or no more.
func (d *Dispatcher) turn(ctx, jobs context.Context) error {
	d.heedDeafness()
	d.gather(ctx)
	drain(d.lanes.freed)
	d.left = leftOut{}
	d.tendSolitude()
	w := d.wants()
	if w.nothing() || !d.mayClaim() {
		d.bell.Awake()
		d.rest(ctx, restPeriod, wakeNone)
		return nil
	}
	if nothing, next, err := d.peek(ctx, w); err != nil {
		return err
	} else if nothing {
		return d.idle(ctx, jobs, claimed{}, next)
	}
	if d.levels.walked.IsZero() {
		if _, err := d.walkLevels(ctx, w); err != nil {
			return err
		}
	}
	got, err := d.claim(ctx, jobs, w)
	if err != nil {
		return err
	}
	d.woke(got)
	if d.alone.waiting != nil {
		return nil
	}
	d.levels.asked = d.levels.asked || d.draining
	if d.draining = got.more; !got.more {
		return d.idle(ctx, jobs, got, 0)
	}
	d.bell.Awake()
	if d.levels.walkIn(walkDraining, time.Now()) <= 0 {
		_, err = d.walkLevels(ctx, w)
	}
	return err
}

// heedDeafness drops all connections once the bell has become deaf, and once more when it is heard again: what befell its own may have
// befallen these, and they would lead to nowhere, or to a server that was demoted, where reads go on to succeed and find
// nothing. While nobody took a turn it may have been both.
func (d *Dispatcher) heedDeafness() {
	deaf, hearings := d.bell.Deaf(), d.bell.Hearings()
	if deaf && !d.deaf || hearings != d.hearings && d.hearings > 0 {
		d.claims.release()
		d.database.reset()
		d.beatNow.send() // a standby that took over may not know this worker: then it finds nothing to claim until it registers anew
	}
	d.deaf, d.hearings = deaf, hearings
}

// leftOut says what a turn left out for want of room. There may be room by the time that it rests, and nobody looked since.
type leftOut struct {
	limited bool      // a freed slot is worth another look
	probeAt time.Time // of the next breaker; zero if none was open
}

// wants is what there is room for now. What there is none for is noted until the next turn.
func (d *Dispatcher) wants() wants {
	w := d.lanes.wants(time.Now())
	d.left.limited = d.left.limited || w.limited
	if !w.probeAt.IsZero() && (d.left.probeAt.IsZero() || w.probeAt.Before(d.left.probeAt)) {
		d.left.probeAt = w.probeAt
	}
	return w
}

// gather waits, while a backlog is drained, until half of the slots are free: a claim costs nearly as much for one job as
// for fifty. With jobs that take longer than gatherFor it has nothing to wait for.
func (d *Dispatcher) gather(ctx context.Context) {
	if !d.draining {
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

// idle waits for work after a claim that took all that it found. next is how long it is until the next job is due, zero if
// that isn't known.
func (d *Dispatcher) idle(ctx, jobs context.Context, got claimed, next time.Duration) (err error) {
	by, patience := wakeDue, walkRung
	if got.jobs == 0 {
		patience = 0 // what rang is not in the levels that are known, or is not due yet
	}
	wait := time.Duration(math.MaxInt64)
	if d.levels.asked {
		wait = max(d.levels.walkIn(patience, time.Now()), 0)
	}
	if next == 0 && wait > 0 {
		if next, err = d.nextDue(ctx, d.wants()); err != nil {
			return err
		}
	}
	if wait == 0 || next <= 0 {
		var found bool
		if found, next, err = d.look(ctx, jobs); found || err != nil {
			return err
		}
	} else if wait < next {
		next, by = wait, wakeNone
	}
	d.readyOnce.Do(func() { close(d.ready) })
	for {
		found := false
		asleep, err := d.bell.Sleep(ctx, func(ctx context.Context, thorough bool) (_ bool, err error) {
			var in time.Duration
			found, in, err = d.recheck(ctx, jobs, thorough)
			if in != 0 {
				next, by = in, wakeDue
			}
			return found, err
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case asleep:
			d.rest(ctx, next, by)
			return nil
		case !found || d.draining || d.levels.walkIn(walkRung, time.Now()) <= 0:
			return nil // a flow that each poll finds jobs of must not keep walks from being made
		}
	}
}

// recheck claims once more for a Bell that is falling asleep. It returns how long it is until the next job is due, or zero
// if it didn't look for that.
func (d *Dispatcher) recheck(ctx, jobs context.Context, thorough bool) (found bool, next time.Duration, err error) {
	w := d.wants()
	got, err := d.claim(ctx, jobs, w)
	if err != nil {
		return false, 0, err
	}
	d.draining = got.more
	if got.jobs > 0 || got.more {
		d.levels.asked = true
		return true, 0, nil
	}
	if !thorough && d.levels.walkIn(walkPolling, time.Now()) > 0 {
		return false, 0, nil
	}
	return d.look(ctx, jobs)
}

// look walks, and claims what that finds due. It returns how long it is until the next job is due, or until a job that is due
// and locked by another transaction is to be tried again: that may let go of it without a ring.
func (d *Dispatcher) look(ctx, jobs context.Context) (found bool, next time.Duration, err error) {
	w := d.wants()
	next, err = d.walkLevels(ctx, w)
	if err != nil {
		return false, 0, err
	}
	if next > 0 {
		d.passed.reset()
		return false, next, nil
	}
	got, err := d.claim(ctx, jobs, w)
	if err != nil {
		return false, 0, err
	}
	d.levels.asked = true
	if d.draining = got.more; got.jobs > 0 || got.more {
		d.passed.reset()
		return true, 0, nil
	}
	if next, err = d.nextDue(ctx, w); err != nil {
		return false, 0, err
	}
	return false, min(d.passed.length(), max(next, time.Millisecond)), nil
}

// rest waits for a ring, for a freed slot where slots are short, for next, which by is the name of, or until the next breaker
// lets a probe through, and at most until the fallback poll.
func (d *Dispatcher) rest(ctx context.Context, next time.Duration, by wake) {
	w := d.wants()
	poll := d.config.Poll
	if d.bell.Deaf() {
		poll = d.config.PollDeaf
	}
	if next > poll {
		next, by = poll, wakePoll
	}
	if d.alone.waiting != nil && next > restPeriod {
		next, by = restPeriod, wakeNone
	}
	if probeAt := d.left.probeAt; !probeAt.IsZero() && time.Until(probeAt) < next {
		next, by = time.Until(probeAt), wakeDue
	}
	freed := d.lanes.freed
	if !d.left.limited && !w.nothing() {
		freed = nil
	}
	timer := time.NewTimer(max(next, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-d.bell.Rings():
		by = wakeRing
	case <-freed:
		by = wakeFreed
	case <-timer.C:
	}
	d.wake, d.levels.asked = by, true
	if by != wakeFreed && by != wakeNone {
		d.reaperNudge.send() // others may come to hold jobs, too
	}
}

// wake is how a Dispatcher that rested was woken.
type wake string

const (
	wakeNone  wake = "" // by its own doing
	wakeRing  wake = "ring"
	wakeDue   wake = "due"
	wakePoll  wake = "poll"
	wakeFreed wake = "freed"
)

// unannounced is for how long a job must have been due when a fallback poll finds it to count as one that should have rung.
const unannounced = time.Second

// woke notes what a claim that followed a rest has found.
func (d *Dispatcher) woke(got claimed) {
	by := d.wake
	d.wake = wakeNone
	if by == wakeNone {
		return
	}
	d.metrics.woke(by, got.jobs > 0)
	switch {
	case by == wakeRing || by == wakeDue:
		d.shy.note(got.jobs > 0, d.others.Load() > 0)
	case by == wakePoll && got.waited > unannounced && !d.bell.Deaf():
		d.metrics.unannounced.Inc()
		d.log.Warn().Int("jobs", got.jobs).Dur("waited_ms", got.waited).
			Msg("the fallback poll found jobs that no ring announced: triggers were off, as in a silenced two-phase commit without ring_jobs; listen_url leads to another database; or a lost wake-up")
	}
}

// shyness is how long to leave a ring to other sidecars. All of a fleet hear it, and one is enough for its job: who finds jobs
// when it is rung is at once there the next time, who comes too late waits longer, and then looks before it claims. So one
// sidecar answers nearly all rings, until its slots are full or it is gone; then others find jobs, and become less shy.
type shyness struct{ delay time.Duration }

const (
	minShyness = time.Millisecond
	maxShyness = 8 * time.Millisecond
)

func (s *shyness) note(found, fleet bool) {
	switch {
	case !fleet:
		s.delay = 0
	case !found:
		s.delay = min(max(2*s.delay, minShyness), maxShyness)
	default:
		if s.delay /= 2; s.delay < minShyness {
			s.delay = 0
		}
	}
}

// peek looks, without a claim, where it is likely that there is nothing: at a fallback poll, and where others of the fleet have been
// faster, after leaving it to them for a while. Nothing: there are no jobs to claim until next.
func (d *Dispatcher) peek(ctx context.Context, w wants) (nothing bool, next time.Duration, err error) {
	switch {
	case d.wake == wakePoll && !d.bell.Deaf():
	case (d.wake == wakeRing || d.wake == wakeDue) && d.shy.delay > 0 && d.levels.walkIn(0, time.Now()) <= maxShyness:
		if !sleep(ctx, d.shy.delay/2+rand.N(d.shy.delay)) {
			return false, 0, nil
		}
		drain(d.bell.Rings())
	default:
		return false, 0, nil
	}
	next, err = d.walkLevels(ctx, w)
	if err != nil || next <= 0 {
		return false, 0, err
	}
	d.woke(claimed{})
	return true, next, nil
}

func drain(tokens <-chan struct{}) {
	select {
	case <-tokens:
	default:
	}
}
