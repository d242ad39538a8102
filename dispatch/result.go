package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Handler runs attempts of jobs. Run is called from many goroutines at once, once per attempt, after the claim is
// committed. It must return soon after ctx is done: at the attempt's deadline, when the job's cancel was asked for, when
// its lease is lost (then nothing that it returns is written) and when the grace period of a shutdown is over. A panic is a failed attempt.
type Handler interface {
	Run(ctx context.Context, job Job) Result
}

// Outcome is what becomes of a job after an attempt.
type Outcome int

const (
	outcomeNone        Outcome = iota // the zero Result is a mistake of the handler: the attempt fails
	OutcomeDone                       // completed
	OutcomeRetry                      // the attempt failed: pending again after a backoff, or failed if it was the last
	OutcomeFail                       // failed for good, whatever attempts are left
	OutcomeSnooze                     // pending again later; the attempt doesn't count
	OutcomeUnavailable                // the handler is down: pending again, the attempt doesn't count, the type's breaker opens
	OutcomeHeld                       // answered later through complete_job or fail_job, by whoever has the lease
	OutcomeSettled                    // the handler settled the job itself, in its own transaction
)

// Result is what a Handler says of an attempt. Make it with Done, Retry, RetryIn, Fail, Snooze, Unavailable, Held or Settled.
type Result struct {
	Outcome Outcome
	// Output is stored in the job's result column, with OutcomeDone. Nil or valid JSON.
	Output json.RawMessage
	// Err says what went wrong. Its text is stored in the job's error column, cut at 4,000 bytes.
	Err error
	// Delay: until the next attempt. With OutcomeRetry and OutcomeUnavailable, 0 means the backoff of the type.
	Delay time.Duration
	// PauseType pauses the job's type until resume_type is called, with Err as the reason: nobody there wants its jobs any more.
	PauseType bool
}

// Done completes the job. Output is its result: nil, or valid JSON.
func Done(output json.RawMessage) Result { return Result{Outcome: OutcomeDone, Output: output} }

// Retry fails the attempt. The job runs again after its type's backoff, unless this was its last attempt.
func Retry(err error) Result { return Result{Outcome: OutcomeRetry, Err: err} }

// RetryIn fails the attempt. The job runs again after delay, unless this was its last attempt.
func RetryIn(err error, delay time.Duration) Result {
	return Result{Outcome: OutcomeRetry, Err: err, Delay: delay}
}

// Fail fails the job for good, whatever attempts are left.
func Fail(err error) Result { return Result{Outcome: OutcomeFail, Err: err} }

// Snooze puts the job off. The attempt doesn't count.
func Snooze(delay time.Duration) Result { return Result{Outcome: OutcomeSnooze, Delay: delay} }

// Unavailable says that the handler can't be reached or is overloaded: not the job's fault. The attempt doesn't count, and
// the type's breaker opens: its jobs stay pending until a single one, sent as a probe after delay (0: the breaker's own
// backoff), gets through. A job that comes back this way for 24 h fails.
func Unavailable(err error, delay time.Duration) Result {
	return Result{Outcome: OutcomeUnavailable, Err: err, Delay: delay}
}

// Held says that the job was accepted, and is settled later by complete_job or fail_job with the attempt's lease, until
// the attempt's deadline. The slot is free at once, and no sidecar holds the job any more.
func Held() Result { return Result{Outcome: OutcomeHeld} }

// Settled says that the handler has settled the job itself, by CompleteTx in a transaction that is now committed.
func Settled() Result { return Result{Outcome: OutcomeSettled} }

var errNoOutcome = errors.New("the handler returned no result")
