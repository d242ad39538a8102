// Package gofunc runs jobs by Go functions of the program that embeds pgbell.
//
// A function's returned value, marshalled as JSON, is the job's result. Its error says what becomes of the job: nil
// completes it, one made by Fail fails it for good, RetryIn and Snooze put it off, Unavailable opens the breaker of its
// type, and any other is a failed attempt, retried after the type's backoff. A panic is a failed attempt too, with the stack
// in the job's error.
//
// A function is called once per attempt, from many goroutines at once. It must return soon after its context is done;
// context.Cause tells why (see the errors of package dispatch). Nobody can stop one that does not: it keeps its slot, and
// its job stays with this process.
package gofunc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

// Handler runs jobs by a function. Make it with New or Typed.
type Handler struct {
	run func(ctx context.Context, job dispatch.Job) (any, error)
}

// New returns a Handler that calls run.
func New(run func(ctx context.Context, job dispatch.Job) (any, error)) Handler {
	return Handler{run: run}
}

// Typed returns a Handler that calls run with the payload unmarshalled into a T. A payload that doesn't fit fails the job
// for good.
func Typed[T any](run func(ctx context.Context, job dispatch.Job, args T) (any, error)) Handler {
	return New(func(ctx context.Context, job dispatch.Job) (any, error) {
		var args T
		if err := json.Unmarshal(job.Payload, &args); err != nil {
			return nil, Fail(fmt.Errorf("unmarshal payload: %w", err))
		}
		return run(ctx, job, args)
	})
}

// Run implements dispatch.Handler.
func (h Handler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	value, err := h.run(ctx, job)
	if err != nil {
		var chosen *outcome
		if errors.As(err, &chosen) {
			result := chosen.result
			result.Err = err
			return result
		}
		return dispatch.Retry(err)
	}
	if value == nil {
		return dispatch.Done(nil)
	}
	output, err := json.Marshal(value)
	if err != nil {
		return dispatch.Fail(fmt.Errorf("marshal result: %w", err))
	}
	return dispatch.Done(output)
}

// outcome is an error that says what becomes of the job.
type outcome struct {
	result dispatch.Result
	err    error
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

var errSnoozed = errors.New("snoozed")

// Fail returns an error that fails the job for good, whatever attempts are left.
func Fail(err error) error { return &outcome{dispatch.Fail(err), err} }

// RetryIn returns an error that fails the attempt and sets the delay until the next one.
func RetryIn(err error, delay time.Duration) error {
	return &outcome{dispatch.RetryIn(err, delay), err}
}

// Snooze returns an error that puts the job off. The attempt doesn't count.
func Snooze(delay time.Duration) error { return &outcome{dispatch.Snooze(delay), errSnoozed} }

// Unavailable returns an error that gives the attempt back because something that all jobs of the type need is down. See
// dispatch.Unavailable.
func Unavailable(err error, delay time.Duration) error {
	return &outcome{dispatch.Unavailable(err, delay), err}
}
