package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
)

var errNot = errors.New("not this time")

func nothing(context.Context, dispatch.Job) (any, error) { return nil, nil }

func TestJobCompletes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	seen := make(chan dispatch.Job, 1)
	f.start(dispatch.Config{Types: types(map[string]func(context.Context, dispatch.Job) (any, error){
		"greet": func(_ context.Context, job dispatch.Job) (any, error) {
			seen <- job
			return map[string]string{"hello": "a@b.c"}, nil
		},
	})})
	id := f.insert(`INSERT INTO jobs (type, payload, priority, metadata) VALUES ('greet', '{"to": "a@b.c", "big": 12345678901234567890}', 7, '{"traceparent": "x"}') RETURNING id`)
	got := f.until(id, "completed")
	job := <-seen
	if job.ID != id || job.Type != "greet" || job.Priority != 7 || job.Attempt != 1 || job.MaxAttempts != 3 || job.Lease == "" {
		t.Errorf("handler got %+v", job)
	}
	if !strings.Contains(string(job.Payload), "12345678901234567890") || !strings.Contains(string(job.Metadata), "traceparent") {
		t.Errorf("handler got payload %s, metadata %s", job.Payload, job.Metadata)
	}
	if left := time.Until(job.Deadline); left < 4*time.Minute || left > 5*time.Minute {
		t.Errorf("deadline in %v, want the default timeout of 5 min", left)
	}
	if string(got.Result) != `{"hello": "a@b.c"}` || got.Attempts != 1 || got.Lease != nil || !got.Completed || got.Errors != 0 {
		t.Errorf("job is %+v, result %s", got, got.Result)
	}
}

func TestRetriesThenSucceeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	configured := types(map[string]func(context.Context, dispatch.Job) (any, error){
		"flaky": func(_ context.Context, job dispatch.Job) (any, error) {
			if job.Attempt < 3 {
				return nil, fmt.Errorf("attempt %d: %w", job.Attempt, errNot)
			}
			return nil, nil
		},
	})
	flaky := configured["flaky"]
	flaky.Backoff = dispatch.Backoff{Base: 10 * time.Millisecond}
	configured["flaky"] = flaky
	f.start(dispatch.Config{Types: configured})
	got := f.until(f.insert(`INSERT INTO jobs (type) VALUES ('flaky') RETURNING id`), "completed")
	if got.Attempts != 3 || got.Errors != 2 || got.Error == nil || *got.Error != "attempt 2: not this time" {
		t.Errorf("job is %+v", got)
	}
}

// What each end of an attempt makes of a job with max_attempts 2.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Types: types(map[string]func(context.Context, dispatch.Job) (any, error){
		"retry":    func(context.Context, dispatch.Job) (any, error) { return nil, errNot },
		"retry in": func(context.Context, dispatch.Job) (any, error) { return nil, gofunc.RetryIn(errNot, time.Hour) },
		"last":     func(context.Context, dispatch.Job) (any, error) { return nil, gofunc.RetryIn(errNot, time.Millisecond) },
		"fail":     func(context.Context, dispatch.Job) (any, error) { return nil, gofunc.Fail(errNot) },
		"snooze":   func(context.Context, dispatch.Job) (any, error) { return nil, gofunc.Snooze(time.Hour) },
		"panic":    func(context.Context, dispatch.Job) (any, error) { panic("all over") },
		"nul":      func(context.Context, dispatch.Job) (any, error) { return nil, errors.New("a\x00b\xffc") },
		"long":     func(context.Context, dispatch.Job) (any, error) { return nil, errors.New(strings.Repeat("é", 5000)) },
		"poison":   func(context.Context, dispatch.Job) (any, error) { return json.RawMessage(`"\u0000"`), nil },
		"unmarsh":  func(context.Context, dispatch.Job) (any, error) { return make(chan int), nil },
	})})
	for _, c := range []struct {
		jobType, status  string
		attempts, errors int
		dueFrom, dueTo   float64
		contains         string
	}{
		{"retry", "pending", 1, 1, 20, 40, "not this time"},
		{"retry in", "pending", 1, 1, 3500, 3600, "not this time"},
		{"last", "failed", 2, 2, -60, 0, "not this time"},
		{"fail", "failed", 1, 1, -60, 0, "not this time"},
		{"snooze", "pending", 0, 0, 3500, 3600, ""},
		{"panic", "pending", 1, 1, 20, 40, "panic: all over"},
		{"nul", "pending", 1, 1, 20, 40, "a\uFFFDb\uFFFDc"},
		{"long", "pending", 1, 1, 20, 40, "éé [cut]"},
		{"poison", "failed", 1, 1, -60, 0, "the outcome can't be stored"},
		{"unmarsh", "failed", 1, 1, -60, 0, "marshal result"},
	} {
		t.Run(c.jobType, func(t *testing.T) {
			f := f
			f.T = t
			id := f.insert(`INSERT INTO jobs (type, max_attempts) VALUES ($1, 2) RETURNING id`, c.jobType)
			var got row
			f.eventually("the attempts end", func() bool {
				got = f.job(id)
				return got.Status == c.status && got.Lease == nil && (got.Error != nil || got.DueIn > 60)
			})
			if got.Attempts != c.attempts || got.Errors != c.errors || got.DueIn < c.dueFrom || got.DueIn > c.dueTo {
				t.Errorf("job is %+v, want attempts %d, errors %d, due in %v to %v s", got, c.attempts, c.errors, c.dueFrom, c.dueTo)
			}
			if text := deref(got.Error); !strings.Contains(text, c.contains) || len(text) > 4000 {
				t.Errorf("error has %d bytes: %.200q, want %q in it", len(text), text, c.contains)
			}
		})
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	causes := make(chan error, 2)
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"slow": {
		Timeout: 50 * time.Millisecond,
		Handler: gofunc.New(func(ctx context.Context, _ dispatch.Job) (any, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		}),
	}}})
	own := f.insert(`INSERT INTO jobs (type, max_attempts, timeout) VALUES ('slow', 1, '80 ms') RETURNING id`)
	if got := f.until(own, "failed"); !strings.HasPrefix(deref(got.Error), "timed out after 80ms") {
		t.Errorf("error is %q", deref(got.Error))
	}
	types := f.insert(`INSERT INTO jobs (type, max_attempts) VALUES ('slow', 1) RETURNING id`)
	if got := f.until(types, "failed"); !strings.HasPrefix(deref(got.Error), "timed out after 50ms") {
		t.Errorf("error is %q", deref(got.Error))
	}
	if cause := <-causes; !errors.Is(cause, dispatch.ErrTimeout) {
		t.Errorf("cause is %v", cause)
	}
}

func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var ran atomic.Int32
	sizes := make(chan int, 2)
	handler := gofunc.New(func(_ context.Context, job dispatch.Job) (any, error) {
		ran.Add(1)
		sizes <- len(job.Payload)
		return nil, nil
	})
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"small": {Handler: handler, MaxPayload: 1000}, "default": {Handler: handler}}})
	insert := `INSERT INTO jobs (type, payload) VALUES ($1, jsonb_build_object('x', repeat('x', $2))) RETURNING id`
	f.until(f.insert(insert, "default", 1<<20), "completed")
	if size := <-sizes; size < 1<<20 {
		t.Errorf("handler got %d bytes, want 1 MiB", size)
	}
	for _, c := range []struct {
		jobType string
		size    int
	}{{"small", 2000}, {"default", 5 << 20}} {
		got := f.until(f.insert(insert, c.jobType, c.size), "failed")
		if !strings.Contains(deref(got.Error), "more than max_payload allows") || got.Attempts != 1 {
			t.Errorf("%s: job is %+v, error %q", c.jobType, got, deref(got.Error))
		}
	}
	if n := ran.Load(); n != 1 {
		t.Errorf("handlers ran %d times, want once", n)
	}
}

func TestDelayedJobStartsWhenDue(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Poll: time.Hour, PollDeaf: time.Hour, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){"later": nothing})})
	// Inserted before the dispatcher looks: polls are off, so that only the next-due timer can start it.
	stopped := newFixture(t)
	id := stopped.insert(`INSERT INTO jobs (type, scheduled_for) VALUES ('later', now() + interval '1500 ms') RETURNING id`)
	stopped.start(dispatch.Config{Poll: time.Hour, PollDeaf: time.Hour, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){"later": nothing})})
	stopped.until(id, "completed")
	late := time.Duration(stopped.count(`SELECT (extract(epoch FROM started_at - scheduled_for) * 1000000)::int FROM jobs`)) * time.Microsecond
	t.Logf("started %v after it was due", late)
	if late < 0 || late > 500*time.Millisecond {
		t.Errorf("started %v after it was due", late)
	}
}

func TestUnknownTypeStaysPendingAndBlocksNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`INSERT INTO jobs (type, priority) SELECT 'unknown', 100 FROM generate_series(1, 500)`)
	f.start(dispatch.Config{Concurrency: 1, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){"known": nothing})})
	f.until(f.insert(`INSERT INTO jobs (type) VALUES ('known') RETURNING id`), "completed")
	if n := f.count(`SELECT count(*) FROM jobs WHERE type = 'unknown' AND status = 'pending' AND attempts = 0`); n != 500 {
		t.Errorf("%d of 500 unknown jobs are untouched", n)
	}
}

func TestDefaultHandler(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var anyRan, ownRan atomic.Int32
	count := func(n *atomic.Int32) gofunc.Handler {
		return gofunc.New(func(context.Context, dispatch.Job) (any, error) { n.Add(1); return nil, nil })
	}
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"*": {Handler: count(&anyRan)}, "own": {Handler: count(&ownRan)}}})
	f.exec(`INSERT INTO jobs (type, priority) SELECT CASE WHEN n % 2 = 0 THEN 'own' ELSE 'type ' || n END, n % 3 FROM generate_series(1, 200) n`)
	f.eventually("all complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 200 })
	if anyRan.Load() != 100 || ownRan.Load() != 100 {
		t.Errorf("default handler ran %d, own %d, want 100 each", anyRan.Load(), ownRan.Load())
	}
}

func TestDefaultHandlerAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"*": {Handler: gofunc.New(nothing)}}})
	f.until(f.insert(`INSERT INTO jobs (type) VALUES ('any') RETURNING id`), "completed")
}

// The limits of a type, of all types under the default handler together, and of the whole process.
func TestConcurrencyLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	running, most := map[string]int{}, map[string]int{}
	note := func(name string, by int) {
		mu.Lock()
		defer mu.Unlock()
		for _, key := range []string{name, "all"} {
			running[key] += by
			most[key] = max(most[key], running[key])
		}
	}
	handler := func(name string) gofunc.Handler {
		return gofunc.New(func(ctx context.Context, _ dispatch.Job) (any, error) {
			note(name, 1)
			defer note(name, -1)
			<-time.After(3 * time.Millisecond)
			return nil, nil
		})
	}
	f.exec(`INSERT INTO jobs (type) SELECT (array['one', 'three', 'free', 'x', 'y'])[1 + n % 5] FROM generate_series(1, 500) n`)
	f.start(dispatch.Config{Concurrency: 8, Types: map[string]dispatch.Type{
		"one": {Handler: handler("one"), Concurrency: 1}, "three": {Handler: handler("three"), Concurrency: 3},
		"free": {Handler: handler("free")}, "*": {Handler: handler("*"), Concurrency: 2},
	}})
	f.eventually("all complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 500 })
	mu.Lock()
	defer mu.Unlock()
	for name, limit := range map[string]int{"one": 1, "three": 3, "*": 2, "all": 8} {
		if most[name] > limit || most[name] == 0 {
			t.Errorf("%s: %d ran at once, the limit is %d", name, most[name], limit)
		}
	}
	if most["three"] < 2 || most["all"] < 5 {
		t.Errorf("slots stay empty: %v", most)
	}
}

func TestPausedTypeWaitsUntilResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`SELECT pause_type('p', 'for the test')`)
	f.start(dispatch.Config{Types: types(map[string]func(context.Context, dispatch.Job) (any, error){"p": nothing, "q": nothing})})
	paused := f.insert(`INSERT INTO jobs (type, priority) VALUES ('p', 9) RETURNING id`)
	f.until(f.insert(`INSERT INTO jobs (type) VALUES ('q') RETURNING id`), "completed")
	if got := f.job(paused); got.Status != "pending" || got.Attempts != 0 {
		t.Errorf("paused job is %+v", got)
	}
	f.exec(`SELECT resume_type('p')`)
	f.until(paused, "completed")
}

func TestHandlerPausesItsType(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Concurrency: 1, Types: map[string]dispatch.Type{"gone": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result {
		result := dispatch.Fail(errors.New("410 Gone"))
		result.PauseType = true
		return result
	})}}})
	f.until(f.insert(`INSERT INTO jobs (type) VALUES ('gone') RETURNING id`), "failed")
	f.eventually("the type is paused", func() bool {
		return f.count(`SELECT count(*) FROM job_types WHERE type = 'gone' AND paused_at IS NOT NULL AND paused_reason = '410 Gone'`) == 1
	})
}

type handlerFunc func(context.Context, dispatch.Job) dispatch.Result

func (f handlerFunc) Run(ctx context.Context, job dispatch.Job) dispatch.Result { return f(ctx, job) }

func TestCancel(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	causes := make(chan error, 1)
	begun := make(chan struct{})
	f.start(dispatch.Config{LeaseTime: 6 * time.Second, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){
		"slow": func(ctx context.Context, _ dispatch.Job) (any, error) {
			close(begun)
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		},
	})})
	waiting := f.insert(`INSERT INTO jobs (type, scheduled_for) VALUES ('slow', now() + interval '1 h') RETURNING id`)
	f.exec(`SELECT cancel_job($1)`, waiting)
	if got := f.job(waiting); got.Status != "cancelled" {
		t.Errorf("pending job is %+v after its cancel", got)
	}
	running := f.insert(`INSERT INTO jobs (type, max_attempts) VALUES ('slow', 1) RETURNING id`)
	<-begun
	f.exec(`SELECT cancel_job($1)`, running)
	if got := f.until(running, "cancelled"); got.Attempts != 1 || !got.Completed {
		t.Errorf("running job is %+v after its cancel", got)
	}
	if cause := <-causes; !errors.Is(cause, dispatch.ErrCancelled) {
		t.Errorf("cause is %v", cause)
	}
}

// An outage of the handler that is longer than the attempts would last: jobs wait, unharmed, and run when it is over.
func TestBreaker(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var down atomic.Bool
	down.Store(true)
	var calls atomic.Int32
	f.start(dispatch.Config{Concurrency: 5, Types: map[string]dispatch.Type{
		"hook": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result {
			calls.Add(1)
			if down.Load() {
				return dispatch.Unavailable(errors.New("connection refused"), 0)
			}
			return dispatch.Done(nil)
		})},
		"other": {Handler: gofunc.New(nothing)},
	}})
	f.exec(`INSERT INTO jobs (type, max_attempts) SELECT 'hook', 1 FROM generate_series(1, 40)`)
	f.eventually("a probe finds it down", func() bool { return calls.Load() >= 6 })
	f.until(f.insert(`INSERT INTO jobs (type) VALUES ('other') RETURNING id`), "completed")
	if n := calls.Load(); n > 9 {
		t.Errorf("%d calls while it was down, want the first few and single probes", n)
	}
	if n := f.count(`SELECT count(*) FROM jobs WHERE type = 'hook' AND (attempts > 1 OR status NOT IN ('pending', 'processing'))`); n > 0 {
		t.Errorf("%d jobs have lost an attempt", n)
	}
	down.Store(false)
	f.eventually("all complete", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE type = 'hook' AND status = 'completed' AND attempts = 1`) == 40
	})
	if n := f.count(`SELECT count(*) FROM job_errors`); n > 0 {
		t.Errorf("%d rows in job_errors for attempts that were given back", n)
	}
}

func TestUnavailableForADayFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"hook": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result {
		return dispatch.Unavailable(errors.New("connection refused"), 0)
	})}}})
	id := f.insert(`INSERT INTO jobs (type, unavailable_since) VALUES ('hook', now() - interval '25 h') RETURNING id`)
	if got := f.until(id, "failed"); deref(got.Error) != "connection refused" || got.Errors != 1 {
		t.Errorf("job is %+v, error %q", got, deref(got.Error))
	}
}

// A job that was answered with "accepted" is nobody's until its lease settles it, or its deadline passes.
func TestHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	leases := make(chan string, 10)
	f.start(dispatch.Config{Concurrency: 1, Types: map[string]dispatch.Type{"async": {
		Timeout: time.Hour,
		Handler: handlerFunc(func(_ context.Context, job dispatch.Job) dispatch.Result {
			leases <- job.Lease
			return dispatch.Held()
		}),
	}}})
	first := f.insert(`INSERT INTO jobs (type) VALUES ('async') RETURNING id`)
	second := f.insert(`INSERT INTO jobs (type, timeout) VALUES ('async', '500 ms') RETURNING id`)
	lease := <-leases
	stale := <-leases // the one slot was free at once
	f.eventually("the sidecar lets go of it", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE id = $1 AND status = 'processing' AND worker_id IS NULL AND held_until > now() + interval '50 min'`, first) == 1
	})
	f.exec(`SELECT complete_job($1, $2, '{"late": true}')`, first, lease)
	if got := f.job(first); got.Status != "completed" || string(got.Result) != `{"late": true}` {
		t.Errorf("job is %+v", got)
	}
	f.eventually("the reaper takes the other one back", func() bool { return f.job(second).Errors == 1 })
	if _, err := f.pool.Exec(t.Context(), `SELECT complete_job($1, $2)`, second, stale); err == nil {
		t.Error("a stale lease completed a job")
	}
}

// A settle by a holder whose lease is not the job's any more changes nothing.
func TestStaleSettleChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	stop := f.start(dispatch.Config{Types: types(map[string]func(context.Context, dispatch.Job) (any, error){
		"slow": func(context.Context, dispatch.Job) (any, error) {
			close(begun)
			<-goOn
			return "mine", nil
		},
	})})
	id := f.insert(`INSERT INTO jobs (type) VALUES ('slow') RETURNING id`)
	<-begun
	f.exec(`UPDATE jobs SET lease = gen_random_uuid(), worker_id = NULL, held_until = now() + interval '1 h' WHERE id = $1`, id)
	close(goOn)
	stop()
	if got := f.job(id); got.Status != "processing" || got.Result != nil {
		t.Errorf("job is %+v, result %s", got, got.Result)
	}
}

func TestShutdownGivesJobsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	begun := make(chan struct{}, 2)
	stop := f.start(dispatch.Config{ShutdownGrace: 200 * time.Millisecond, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){
		"quick": func(context.Context, dispatch.Job) (any, error) {
			begun <- struct{}{}
			<-time.After(50 * time.Millisecond)
			return nil, nil
		},
		"slow": func(ctx context.Context, _ dispatch.Job) (any, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		},
	})})
	quick := f.insert(`INSERT INTO jobs (type) VALUES ('quick') RETURNING id`)
	slow := f.insert(`INSERT INTO jobs (type) VALUES ('slow') RETURNING id`)
	<-begun
	<-begun
	stop()
	if got := f.job(quick); got.Status != "completed" {
		t.Errorf("quick job is %+v", got)
	}
	if got := f.job(slow); got.Status != "pending" || got.Attempts != 0 || got.DueIn > 0 || got.Errors != 0 {
		t.Errorf("slow job is %+v, want it back as it was", got)
	}
	if n := f.count(`SELECT count(*) FROM job_workers`); n != 0 {
		t.Errorf("%d rows left in job_workers", n)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`INSERT INTO jobs (type, status, updated_at) SELECT 'x', s::job_status, now() - age
		FROM unnest(array['pending', 'completed', 'failed', 'cancelled']) s, unnest(array[interval '1 h', '10 d', '40 d', '100 d']) age, generate_series(1, 100)`)
	f.exec(`INSERT INTO job_errors (job_id, lease, attempt, error) SELECT id, gen_random_uuid(), 1, '' FROM jobs`)
	f.start(dispatch.Config{Retention: dispatch.Retention{Cancelled: -1}, Types: types(map[string]func(context.Context, dispatch.Job) (any, error){"y": nothing})})
	// Kept: all 400 pending, completed of 1 h, failed of 1 h and 10 d, all 400 cancelled.
	f.eventually("old ones go", func() bool { return f.count(`SELECT count(*) FROM jobs`) == 400+100+200+400 })
	f.eventually("their errors go too", func() bool {
		return f.count(`SELECT count(*) FROM job_errors`) == 1100
	})
}

func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := dispatch.New(nil, dispatch.Config{Concurrency: -1, LeaseTime: time.Millisecond, Types: map[string]dispatch.Type{
		"a": {Timeout: -1}, strings.Repeat("x", 201): {Handler: gofunc.New(nothing), Backoff: dispatch.Backoff{Factor: 0.5, Jitter: 2}},
	}})
	for _, mistake := range []string{"no pool", "concurrency must be at least 1", "lease_time must be at least 1s", "handlers.a: no handler",
		"timeout must not be negative", "1 to 200 characters", "factor must be at least 1", "jitter must be at most 1"} {
		if !strings.Contains(fmt.Sprint(err), mistake) {
			t.Errorf("error doesn't say %q: %v", mistake, err)
		}
	}
}
