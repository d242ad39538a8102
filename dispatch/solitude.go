package dispatch

import (
	"context"
	"errors"
	"time"
)

// aloneFrom is how many deaths of its worker make a job run alone; reapSQL knows it, too.
const aloneFrom = 2

const (
	// A job that is to run alone waits so long for the other jobs of its process to end, and then goes back for as long. Each
	// time that it was in vain doubles it, so that jobs that run for long neither keep it from running for ever, nor does
	// it keep new jobs from being claimed for more than half of the time.
	minSolitudeWait = time.Minute
	maxSolitudeWait = time.Hour
	// maxSolitudeRest is for how long other jobs have their turn at most, after one that ran alone.
	maxSolitudeRest = time.Minute
	// solitudeStep is the time between those that are given back because one is enough.
	solitudeStep = time.Second
)

// solitude has a job that may kill its worker run alone in its process: the others end first, and no more are claimed until
// it has ended. So nobody else pays if it does so again, and then it is known which one it was. claimLoop's alone.
type solitude struct {
	waiting *attempt // for the other jobs to end
	until   time.Time
	wait    time.Duration
	// Other jobs have their turn after it: none is taken in again for as long as the last one took, if it ran up to
	// maxSolitudeRest, if it waited in vain for as long as that was.
	since, again time.Time
}

// partition takes out of a claim what is to run alone.
func partition(found []*attempt) (company, alone []*attempt) {
	for i, a := range found {
		if a.job.Crashes < aloneFrom {
			continue
		}
		company, alone = append(company, found[:i]...), append(alone, a)
		for _, a := range found[i+1:] {
			if a.job.Crashes < aloneFrom {
				company = append(company, a)
			} else {
				alone = append(alone, a)
			}
		}
		return company, alone
	}
	return found, nil
}

// seclude takes in jobs that are to run alone: the first, unless one is there already. The others go back at once.
func (d *Dispatcher) seclude(ctx context.Context, alone []*attempt) {
	if len(alone) == 0 {
		return
	}
	d.hold(ctx, alone)
	d.tendSolitude()
	now := time.Now()
	later := max(d.alone.again.Sub(now), 0)
	if later == 0 {
		d.lanes.seclude(true)
		d.alone.waiting, d.alone.since, d.alone.until = alone[0], now, now.Add(d.alone.wait)
		alone = alone[1:]
	}
	for i, a := range alone {
		d.handBack(a, later+time.Duration(i+1)*solitudeStep, nil)
	}
	first := d.alone.waiting
	if first == nil {
		return
	}
	d.log.Warn().Str("job_id", first.job.ID).Str("type", first.job.Type).Int("crashes", first.job.Crashes).
		Msg("workers died while they ran this job: it runs alone here, and no other job is claimed until it has ended")
	d.tendSolitude()
}

// tendSolitude starts the job that waits to run alone, if it is alone now, or gives it back if it has waited in vain.
func (d *Dispatcher) tendSolitude() {
	now := time.Now()
	a := d.alone.waiting
	if a == nil {
		if !d.alone.since.IsZero() && !d.lanes.isSecluded() { // it has ended
			d.alone.again = now.Add(min(now.Sub(d.alone.since), maxSolitudeRest))
			d.alone.since = time.Time{}
		}
		return
	}
	switch cause := context.Cause(a.ctx); {
	case cause != nil:
		d.endSolitude(cause)
	case d.lanes.holds() == 1:
		d.alone.waiting, d.alone.wait = nil, minSolitudeWait
		a.begin(now)
		d.crew.start([]*attempt{a})
	case !now.Before(d.alone.until):
		d.log.Warn().Str("job_id", a.job.ID).Str("type", a.job.Type).Dur("waited_ms", d.alone.wait).
			Msg("a job that is to run alone goes back: other jobs run for too long")
		d.alone.waiting, d.alone.since, d.alone.again = nil, time.Time{}, now.Add(d.alone.wait)
		d.lanes.seclude(false)
		d.handBack(a, d.alone.wait, nil)
		d.alone.wait = min(2*d.alone.wait, maxSolitudeWait)
	}
}

// endSolitude gives the job that waits back, because of cause.
func (d *Dispatcher) endSolitude(cause error) {
	a := d.alone.waiting
	if a == nil {
		return
	}
	d.alone.waiting = nil
	d.lanes.seclude(false)
	d.handBack(a, 0, cause)
}

// handBack gives back a job that was claimed and did not start.
func (d *Dispatcher) handBack(a *attempt, delay time.Duration, cause error) {
	a.cancel(nil)
	d.lanes.release(a.job.Type, a.lane, Result{}, a.answered)
	v := verdict{attempt: a, what: whatBack}
	switch {
	case errors.Is(cause, ErrLeaseLost):
		d.let(a)
		return
	case delay > 0:
		v.what, v.delay = whatSnooze, delay
	}
	d.settler.add(v)
}
