package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// idleBeat is how often a worker that holds no jobs heartbeats: nobody judges it by that, but its row stays alive.
const idleBeat = time.Minute

// compareAgain after a comparison that failed.
const compareAgain = time.Second

// beatAgain after a heartbeat that did not arrive.
const beatAgain = 250 * time.Millisecond

// register gets a worker number, once the database answers. It returns false if ctx was done before.
func (d *Dispatcher) register(ctx context.Context) bool {
	again := newPause(100*time.Millisecond, 5*time.Second)
	for ctx.Err() == nil {
		err := d.tryRegister(ctx)
		if err == nil {
			d.database.up(doRegister)
			return true
		}
		d.database.down(doRegister, err)
		again.wait(ctx, nil)
	}
	return false
}

func (d *Dispatcher) tryRegister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	sent := d.clock()
	types := slices.Sorted(maps.Keys(d.config.Types))
	type row struct{ Worker, Others int32 }
	registered, err := queryUnder(ctx, &d.beats, d.sql.briefly, pgx.RowToStructByPos[row], d.sql.register, d.config.Name, d.config.Version,
		SchemaVersion, d.config.Concurrency, types, d.config.LeaseTime.Seconds(), d.deadAfter().Seconds())
	if err != nil {
		return fmt.Errorf("register worker: %w", err)
	}
	if _, err := execUnder(ctx, &d.beats, d.sql.briefly, d.sql.saveManualLease, fmt.Sprintf("%f seconds", d.config.ManualLease.Seconds())); err != nil {
		return fmt.Errorf("save manual_lease: %w", err)
	}
	if _, err := execUnder(ctx, &d.beats, d.sql.briefly, d.sql.ring); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	d.worker.Store(registered[0].Worker)
	d.others.Store(registered[0].Others)
	d.beaten(sent)
	return nil
}

// deadAfter is for how long our presence may be missing. Where it is never shown, only heartbeats count.
func (d *Dispatcher) deadAfter() time.Duration {
	if d.config.Presence == nil {
		return d.config.LeaseTime
	}
	return d.config.DeadAfter
}

func (d *Dispatcher) unregister(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	if _, err := execUnder(ctx, &d.beats, d.sql.briefly, d.sql.unregister, d.worker.Load()); err != nil {
		d.log.Warn().Err(err).Msg("unregister worker")
	}
}

// beaten notes that a heartbeat that was sent then has arrived.
func (d *Dispatcher) beaten(sent time.Duration) { d.lastBeat.Store(int64(sent)) }

// leaseLeft is how long our leases certainly stand from now on.
func (d *Dispatcher) leaseLeft() time.Duration {
	return d.config.LeaseTime - (d.clock() - time.Duration(d.lastBeat.Load()))
}

// leaseMargin before the end of the lease, jobs are cancelled, so that they are over when others may start them. A third of the lease is
// early enough, at its default, for a network that swallows everything: the server ends such a session 9 s after the last
// heartbeat at the soonest, and dead_after later the jobs are others'.
func (d *Dispatcher) leaseMargin() time.Duration { return d.config.LeaseTime / 3 }

// mayClaim: not while our heartbeats don't arrive. A worker without jobs needs none, its next claim is one.
func (d *Dispatcher) mayClaim() bool {
	return d.lanes.holds() == 0 || d.leaseLeft() > d.leaseMargin()
}

// suspect notes that a claim's answer was lost: the database may hold jobs for us that we don't know of.
func (d *Dispatcher) suspect() {
	d.suspectTill.Store(int64(d.clock() + 2*d.config.LeaseTime))
	d.beatNow.send()
}

func (d *Dispatcher) suspicious() bool {
	return d.clock() < time.Duration(d.suspectTill.Load())
}

// heartbeatLoop keeps the worker's row alive, and compares what we hold with what the database says that we hold, until ctx
// is done. Where heartbeats don't arrive it cancels our jobs before the lease runs out.
func (d *Dispatcher) heartbeatLoop(ctx context.Context) {
	present, stop := d.announce(ctx)
	defer func() { stop(); present.Wait() }()
	due := d.clock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		asked, atOnce := false, false
		select {
		case <-ctx.Done():
			return
		case <-d.bell.Cancels():
			asked, atOnce = true, true
		case <-d.beatNow:
			atOnce = true
		case <-d.busy:
		case <-timer.C:
		}
		if d.beats.scarcity.now() {
			d.beats.release()
		}
		// Jobs may have come, or our presence gone: then it is due sooner. Never later, although the claims of an idle worker
		// are heartbeats: what we hold has to be compared all the same.
		due = min(due, time.Duration(d.lastBeat.Load())+d.nextBeat())
		if left := due - d.clock(); left > 0 && !atOnce {
			timer.Reset(min(left, d.glance()))
			continue
		}
		err, next := d.beat(ctx), time.Duration(0)
		switch {
		case err == nil:
			d.database.up(doHeartbeat)
			if next = d.nextBeat(); !d.keepComparing(ctx, asked) {
				next = min(next, compareAgain)
			}
		case errors.Is(err, ErrLeaseLost):
			d.log.Error().Int32("worker_id", d.worker.Load()).Msg("this worker was declared dead: its jobs are cancelled, and it starts anew")
			d.loseAll()
			stop()
			present.Wait()
			if !d.register(ctx) {
				return
			}
			present, stop = d.announce(ctx)
		case ctx.Err() == nil:
			d.database.down(doHeartbeat, err)
			if d.leaseLeft() <= d.leaseMargin() {
				d.attempts.cancelAll(ErrLeaseEnding)
			}
			next = beatAgain
		}
		due = d.clock() + next
		timer.Reset(min(next, d.glance()))
	}
}

// loseAll cancels all that a worker which was declared dead runs, and what a claim still under way leads to.
func (d *Dispatcher) loseAll() {
	d.attempts.cancelAll(ErrLeaseLost)
	d.claiming <- struct{}{}
	defer func() { <-d.claiming }()
	d.attempts.cancelAll(ErrLeaseLost)
}

// announce makes this worker present, until stop is called.
func (d *Dispatcher) announce(ctx context.Context) (*sync.WaitGroup, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	var present sync.WaitGroup
	if p := d.config.Presence; p != nil {
		worker := d.worker.Load()
		present.Go(func() {
			if err := p.Announce(ctx, worker); err != nil && ctx.Err() == nil {
				d.log.Error().Err(err).Msg("announce presence: a crash of this process will be noticed by its heartbeats alone")
			}
		})
	}
	return &present, stop
}

// nextBeat is often enough that a lost heartbeat or two don't cost the lease; and, while nothing but heartbeats shows that
// we are alive, that nobody takes us for dead.
func (d *Dispatcher) nextBeat() time.Duration {
	switch {
	case d.lanes.holds() == 0 && !d.suspicious():
		return idleBeat
	case d.config.Presence != nil && !d.config.Presence.Present():
		return min(d.config.LeaseTime, d.config.DeadAfter) / 3
	default:
		return d.config.LeaseTime / 3
	}
}

// glance is how often to look whether a heartbeat has become due sooner than it was: as our presence is gone, and others count.
func (d *Dispatcher) glance() time.Duration {
	if d.lanes.holds() == 0 && !d.suspicious() {
		return idleBeat // busy tells of the first job
	}
	return min(d.config.LeaseTime, d.config.DeadAfter) / 15
}

func (d *Dispatcher) beat(ctx context.Context) error {
	// Given up in time to cancel our jobs before the lease ends.
	limit := min(max(d.leaseLeft()-d.leaseMargin(), min(time.Second, d.config.LeaseTime/6)), d.statementTimeout())
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent := d.clock()
	others, err := queryUnder(ctx, &d.beats, d.sql.briefly, pgx.RowTo[int32], d.sql.beat, d.worker.Load())
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if len(others) == 0 {
		return ErrLeaseLost
	}
	d.beaten(sent)
	d.others.Store(others[0])
	return nil
}

// keepComparing compares now and then, when asked to, and while something may be amiss. It returns false if that failed: the heartbeat
// before it counts all the same.
func (d *Dispatcher) keepComparing(ctx context.Context, asked bool) bool {
	if time.Since(d.compared) < d.config.LeaseTime/3 && !asked && !d.suspicious() {
		return true
	}
	// Given up in time for the next heartbeat.
	limited, cancel := context.WithTimeout(ctx, d.config.LeaseTime/6)
	defer cancel()
	if err := d.compare(limited); err != nil {
		if ctx.Err() == nil {
			d.database.down(doCompare, err)
		}
		d.compared = time.Time{}
		return false
	}
	d.compared = time.Now()
	d.database.up(doCompare)
	return true
}

// compare cancels jobs that the database no longer holds for us and those whose cancel was asked for, and gives back jobs
// that it holds for us without our knowing: their claim was committed, but its answer never came.
func (d *Dispatcher) compare(ctx context.Context) error {
	select {
	case d.claiming <- struct{}{}: // or a claim's rows would be there and not yet here
		defer func() { <-d.claiming }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a claim: %w", ctx.Err())
	}
	here := d.attempts.all()
	if len(here) == 0 && !d.suspicious() {
		return nil
	}
	type row struct {
		ID, Lease pgtype.UUID
		Cancelled bool
	}
	rows, err := queryUnder(ctx, &d.beats, d.sql.plain, pgx.RowToStructByPos[row], d.sql.held, d.worker.Load())
	if err != nil {
		return fmt.Errorf("read own leases: %w", err)
	}
	there := make(map[pgtype.UUID]bool, len(rows))
	known := make(map[pgtype.UUID]*attempt, len(here))
	for _, a := range here {
		known[a.job.lease] = a
	}
	var lostIDs, lostLeases []pgtype.UUID
	for _, r := range rows {
		there[r.Lease] = true
		if a := known[r.Lease]; a == nil {
			lostIDs, lostLeases = append(lostIDs, r.ID), append(lostLeases, r.Lease)
		} else if r.Cancelled {
			a.cancel(ErrCancelled)
		}
	}
	for lease, a := range known {
		if !there[lease] {
			a.cancel(ErrLeaseLost) // or it was settled just now: then nobody listens
		}
	}
	if len(lostIDs) == 0 {
		return nil
	}
	d.log.Warn().Int("jobs", len(lostIDs)).Msg("giving back jobs of a claim whose answer was lost")
	if _, err := execUnder(ctx, &d.beats, d.sql.plain, d.sql.release, lostIDs, lostLeases); err != nil {
		return fmt.Errorf("give back jobs: %w", err)
	}
	return nil
}
