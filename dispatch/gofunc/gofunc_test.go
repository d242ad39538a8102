package gofunc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/internal/conformance"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(_ *testing.T, _ string, behaviour conformance.Behaviour) dispatch.Handler {
		return gofunc.New(func(ctx context.Context, job dispatch.Job) (any, error) {
			switch behaviour {
			case conformance.Echo:
				return job.Payload, nil
			case conformance.Describe:
				return map[string]any{"id": job.ID, "type": job.Type, "attempt": job.Attempt, "max_attempts": job.MaxAttempts, "lease": job.Lease}, nil
			case conformance.Flaky:
				if job.Attempt < 3 {
					return nil, fmt.Errorf("flaky attempt %d", job.Attempt)
				}
				return nil, nil
			case conformance.Hopeless:
				return nil, errors.New("hopeless")
			case conformance.Permanent:
				return nil, gofunc.Fail(errors.New("permanent"))
			case conformance.Slow:
				<-ctx.Done()
				return nil, ctx.Err()
			case conformance.Loud:
				return nil, errors.New(strings.Repeat("loud\n", 30_000))
			default:
				return nil, nil
			}
		})
	})
}

func TestErrorsChooseTheOutcome(t *testing.T) {
	t.Parallel()
	plain := errors.New("no")
	for _, c := range []struct {
		err   error
		want  dispatch.Outcome
		delay time.Duration
	}{
		{plain, dispatch.OutcomeRetry, 0},
		{gofunc.Fail(plain), dispatch.OutcomeFail, 0},
		{fmt.Errorf("wrapped: %w", gofunc.Fail(plain)), dispatch.OutcomeFail, 0},
		{gofunc.RetryIn(plain, time.Minute), dispatch.OutcomeRetry, time.Minute},
		{gofunc.Snooze(time.Hour), dispatch.OutcomeSnooze, time.Hour},
		{gofunc.Unavailable(plain, time.Second), dispatch.OutcomeUnavailable, time.Second},
	} {
		got := gofunc.New(func(context.Context, dispatch.Job) (any, error) { return nil, c.err }).Run(t.Context(), dispatch.Job{})
		if got.Outcome != c.want || got.Delay != c.delay || got.Err == nil || got.Err.Error() != c.err.Error() {
			t.Errorf("%v: got %+v", c.err, got)
		}
	}
}

func TestTyped(t *testing.T) {
	t.Parallel()
	type email struct{ To string }
	handler := gofunc.Typed(func(_ context.Context, _ dispatch.Job, args email) (any, error) { return args.To, nil })
	if got := handler.Run(t.Context(), dispatch.Job{Payload: json.RawMessage(`{"to": "a@b.c"}`)}); string(got.Output) != `"a@b.c"` {
		t.Errorf("got %+v", got)
	}
	if got := handler.Run(t.Context(), dispatch.Job{Payload: json.RawMessage(`{"to": 1}`)}); got.Outcome != dispatch.OutcomeFail {
		t.Errorf("a payload that doesn't fit: got %+v", got)
	}
}
