package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// untilCancelled notes when its job starts, and why its context ends.
type untilCancelled struct {
	started chan struct{}
	causes  chan error
}

func (h untilCancelled) Run(ctx context.Context, _ Job) Result {
	close(h.started)
	<-ctx.Done()
	h.causes <- context.Cause(ctx)
	return Retry(ctx.Err())
}

// While a machine is suspended all of Go's timers stand still, and other sidecars take its jobs. After it they are cancelled at the
// next glance, not at the next heartbeat, which is due in 20 s by those timers.
func TestJobsAreCancelledAfterASuspend(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	handler := untilCancelled{make(chan struct{}), make(chan error, 1)}
	d, err := New(pool, Config{LeaseTime: time.Minute, PollDeaf: 10 * time.Millisecond,
		Presence: alwaysPresent{}, Types: map[string]Type{"work": {Handler: handler}}})
	if err != nil {
		t.Fatal(err)
	}
	var suspended atomic.Int64
	d.clock = func() time.Duration { return sinceBoot() + time.Duration(suspended.Load()) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if _, err := pool.Exec(t.Context(), `INSERT INTO jobs (type) VALUES ('work')`); err != nil {
		t.Fatal(err)
	}
	<-handler.started
	if _, err := pool.Exec(t.Context(), `UPDATE job_workers SET dead_at = now()`); err != nil {
		t.Fatal(err)
	}
	suspended.Store(int64(time.Hour))
	resumed := time.Now()
	select {
	case cause := <-handler.causes:
		if took := time.Since(resumed); !errors.Is(cause, ErrLeaseLost) || took > 5*time.Second {
			t.Errorf("cancelled after %s: %v", took, cause)
		}
	case <-time.After(15 * time.Second):
		t.Error("the job runs on")
		cancel()
	}
}

type alwaysPresent struct{}

func (alwaysPresent) Announce(ctx context.Context, _ int32) error {
	<-ctx.Done()
	return nil
}
func (alwaysPresent) Present() bool { return true }
