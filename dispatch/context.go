package dispatch

import (
	"context"
	"errors"
	"time"
)

// deadlineContext is the context of an attempt. What ends it at its deadline is the attempt's own timer, which gives
// ErrTimeout as the cause; a second context from context.WithDeadlineCause would cost each job more than all else here.
type deadlineContext struct {
	context.Context //nolint:containedctx // it is a context
	deadline        time.Time
}

// attemptContext returns the context of an attempt, with the values of parent, which is never done: the Dispatcher cancels
// its attempts itself, with the cause.
func attemptContext(parent context.Context, deadline time.Time) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	return deadlineContext{ctx, deadline}, cancel
}

// attemptDeadline returns the context of an attempt with another deadline.
func attemptDeadline(attempt context.Context, deadline time.Time) context.Context {
	if c, ok := attempt.(deadlineContext); ok {
		attempt = c.Context
	}
	return deadlineContext{attempt, deadline}
}

// Deadline implements context.Context.
func (c deadlineContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Err implements context.Context.
func (c deadlineContext) Err() error {
	err := c.Context.Err()
	if err != nil && errors.Is(context.Cause(c.Context), ErrTimeout) {
		return context.DeadlineExceeded
	}
	return err
}
