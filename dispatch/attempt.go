package dispatch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// attempt is a job that this process holds: claimed, and not yet settled.
type attempt struct {
	job      Job
	lane     *lane
	answered time.Time       // when its claim's answer was read
	apart    bool            // its payload did not come with the claim
	ctx      context.Context //nolint:containedctx // handed to the goroutine that runs it
	cancel   context.CancelCauseFunc
}

// attempts are all that this process holds, by lease. Its methods may be called from any goroutine.
type attempts struct {
	mu      sync.Mutex
	byLease map[pgtype.UUID]*attempt
}

func (a *attempts) add(added []*attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range added {
		a.byLease[one.job.lease] = one
	}
}

func (a *attempts) remove(batch []verdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range batch {
		delete(a.byLease, v.attempt.job.lease)
	}
}

func (a *attempts) all() []*attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := make([]*attempt, 0, len(a.byLease))
	for _, one := range a.byLease {
		held = append(held, one)
	}
	return held
}

func (a *attempts) cancelAll(cause error) {
	for _, one := range a.all() {
		one.cancel(cause)
	}
}

// start runs claimed jobs. A job's slot is free again when its handler has returned; it is held
// until the settler has written what came of it.
func (d *Dispatcher) start(ctx context.Context, claimed []*attempt) {
	if len(claimed) > 0 {
		d.hold(ctx, claimed)
		d.crew.start(claimed)
	}
}

// hold takes claimed jobs in.
func (d *Dispatcher) hold(ctx context.Context, claimed []*attempt) {
	now := time.Now()
	for _, a := range claimed {
		a.lane, a.answered = d.lanes.of(a.job.Type), now
		a.job.Deadline = now.Add(a.timeout())
		a.ctx, a.cancel = attemptContext(ctx, a.job.Deadline)
	}
	if d.lanes.take(claimed) {
		d.busy.send()
	}
	d.attempts.add(claimed)
}

// timeout is how long the attempt may take: the job's own limit, or else its type's.
func (a *attempt) timeout() time.Duration {
	if a.job.timeout > 0 {
		return a.job.timeout
	}
	return a.lane.Timeout
}

// begin counts from now on what has been counted from the claim.
func (a *attempt) begin(now time.Time) {
	a.job.lateness += now.Sub(a.answered)
	a.answered, a.job.Deadline = now, now.Add(a.timeout())
	a.ctx = attemptDeadline(a.ctx, a.job.Deadline)
}

func (d *Dispatcher) run(a *attempt) {
	ctx := a.ctx
	defer a.cancel(nil)
	begun := time.Now()
	defer time.AfterFunc(a.job.Deadline.Sub(begun), func() { a.cancel(ErrTimeout) }).Stop()
	a.lane.metrics.begin(a, begun)
	result := d.call(ctx, a)
	a.job.Payload = nil // may be big, and the job may have to wait for its settle
	cause := context.Cause(ctx)
	took := time.Since(begun)
	a.lane.metrics.end(took)

	verdict, answer := d.judge(a, result, cause)
	wait := d.lanes.release(a.job.Type, a.lane, answer, a.answered)
	if answer.Outcome == OutcomeUnavailable {
		verdict.delay = wait
	}
	// The error stays out: it holds what the handler says, and that may be the payload. job_errors has it.
	d.log.Debug().Str("job_id", a.job.ID).Str("type", a.job.Type).Int("attempt", a.job.Attempt).
		Dur("duration_ms", took).Str("outcome", string(verdict.what)).Msg("attempt ended")
	if verdict.what == whatNothing {
		if answer.Outcome == OutcomeSettled {
			a.lane.metrics.settled[whatDone].Inc()
		}
		d.let(a)
		return
	}
	d.settler.add(verdict)
}

// let forgets a job that needs no settle by this process.
func (d *Dispatcher) let(a *attempt) {
	d.attempts.remove([]verdict{{attempt: a}})
	d.lanes.settled(1)
}

// call hands the job to its handler. A panic is a failed attempt, with the stack in the error.
func (d *Dispatcher) call(ctx context.Context, a *attempt) (result Result) {
	if a.apart {
		if err := d.readPayload(ctx, a); err != nil {
			return Retry(fmt.Errorf("%w: %w", errUnread, err))
		}
	}
	if a.job.size > a.lane.MaxPayload {
		return Fail(fmt.Errorf("the payload has %d bytes, more than max_payload allows (%d)", a.job.size, a.lane.MaxPayload))
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			result = Retry(fmt.Errorf("panic: %v\n%s", panicked, debug.Stack()))
		}
	}()
	return a.lane.Handler.Run(ctx, a.job)
}

// judge turns a result into what is written. The second value is what it says of the handler: a zero Result if nothing,
// because the attempt ended for another reason.
func (d *Dispatcher) judge(a *attempt, result Result, cause error) (verdict, Result) {
	v := verdict{attempt: a}
	switch {
	case errors.Is(cause, ErrLeaseLost):
		d.log.Warn().Str("job_id", a.job.ID).Str("type", a.job.Type).Int("attempt", a.job.Attempt).
			Msg("lease lost while the job ran: its outcome is dropped, another worker has it")
		return v, Result{}
	case result.Outcome == OutcomeRetry && (errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrLeaseEnding)):
		v.what, v.err = whatBack, cause.Error()
		return v, Result{}
	}
	if result.Err != nil {
		v.err = storable(cmp.Or(result.Err.Error(), "no error given"), maxErrorText)
	}
	if errors.Is(result.Err, errUnread) {
		v.what, v.delay = whatUnavailable, payloadAgain
		return v, Result{}
	}
	switch result.Outcome {
	case OutcomeDone:
		v.what = whatDone
		if v.output = result.Output; len(v.output) > 0 {
			d.checkOutput(a, &v)
		}
	case OutcomeFail:
		v.what = whatFail
		if result.PauseType {
			d.pauses.add(a.job.Type, v.err)
		}
	case OutcomeSnooze:
		v.what, v.delay = whatSnooze, max(result.Delay, 0)
	case OutcomeUnavailable:
		v.what = whatUnavailable
	case OutcomeHeld:
		v.what, v.delay = whatHold, max(time.Until(a.job.Deadline), 0)
	case OutcomeSettled:
		v.what = whatNothing
	default:
		if result.Outcome != OutcomeRetry {
			v.err = errNoOutcome.Error()
		}
		v.what, v.delay = whatRetry, result.Delay
		if v.delay <= 0 {
			v.delay = a.lane.Backoff.delay(a.job.Attempt)
		}
		if errors.Is(cause, ErrTimeout) || errors.Is(result.Err, ErrTimeout) {
			v.err = storable(timeoutText(a, v.err), maxErrorText)
		}
	}
	return v, result
}

// timeoutText says after how long an attempt timed out, unless its handler did.
func timeoutText(a *attempt, text string) string {
	said := ErrTimeout.Error()
	if strings.HasPrefix(text, said+" after ") {
		return text
	}
	return fmt.Sprintf("%s after %s: %s", said, a.job.Deadline.Sub(a.answered).Round(time.Millisecond), strings.TrimPrefix(text, said+": "))
}

// maxOutput is how many bytes of a result are stored.
const maxOutput = 4 << 20

// checkOutput drops a result that can't be stored: the job has done its work all the same.
func (d *Dispatcher) checkOutput(a *attempt, v *verdict) {
	why := ""
	switch {
	case len(v.output) > maxOutput:
		why = fmt.Sprintf("it has %d bytes, at most %d are stored", len(v.output), maxOutput)
	case !json.Valid(v.output):
		why = "it is not valid JSON"
	}
	if why != "" {
		v.output = nil
		d.log.Warn().Str("job_id", a.job.ID).Str("type", a.job.Type).Str("error", why).Msg("result of a completed job dropped")
	}
}
