package dispatch_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
)

// With one slot, jobs run by priority, then due time, across types, named or not.
func TestOrderAcrossTypes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`INSERT INTO jobs (type, priority, scheduled_for, payload)
		SELECT (array['a', 'b', 'other', 'another'])[1 + (n * 7) % 4], (n * 5) % 3, now() - (n * 37) % 101 * interval '1 s', to_jsonb(n)
		FROM generate_series(1, 100) n`)
	rows, err := f.pool.Query(t.Context(), `SELECT payload::text FROM jobs ORDER BY priority DESC, scheduled_for, id`)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	var mu sync.Mutex
	var got []string
	handler := gofunc.New(func(_ context.Context, job dispatch.Job) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(job.Payload))
		return nil, nil
	})
	f.start(dispatch.Config{Concurrency: 1, Types: map[string]dispatch.Type{"a": {Handler: handler}, "b": {Handler: handler}, "*": {Handler: handler}}})
	f.eventually("all complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 100 })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(got, want) {
		t.Errorf("ran in the order\n%v, want\n%v", got, want)
	}
}

// Jobs due in the future, however high their priority, and another type's backlog are never in the way.
func TestFutureAndForeignJobsAreNotInTheWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`INSERT INTO jobs (type, priority, scheduled_for) SELECT 'a', 1 + n % 5, now() + interval '1 h' FROM generate_series(1, 5000) n`)
	f.exec(`INSERT INTO jobs (type, priority) SELECT 'foreign', 9 FROM generate_series(1, 5000) n`)
	id := f.insert(`INSERT INTO jobs (type, priority) VALUES ('a', -2147483648) RETURNING id`)
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"a": {Handler: gofunc.New(nothing)}}})
	f.until(id, "completed")
	if n := f.count(`SELECT count(*) FROM jobs WHERE status = 'pending' AND attempts = 0`); n != 10000 {
		t.Errorf("%d of 10000 others are untouched", n)
	}
}

// More types and priorities than one claim looks into, jobs before the place that claims have come to, and priorities that
// turn up while a backlog is drained.
func TestWhatClaimsByLevelsMissIsFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var late atomic.Int32
	f.start(dispatch.Config{Concurrency: 10, Types: map[string]dispatch.Type{
		"*": {Handler: gofunc.New(nothing), Concurrency: 7},
		"urgent": {Handler: gofunc.New(func(_ context.Context, job dispatch.Job) (any, error) {
			if job.Priority == 1000 {
				late.Store(int32(f.count(`SELECT count(*) FROM jobs WHERE type = 'urgent' AND status = 'pending'`)))
			}
			return nil, nil
		})},
	}})
	done := func(n int) func() bool {
		return func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == n }
	}
	f.exec(`INSERT INTO jobs (type, priority) SELECT 'kind ' || n % 500, n % 3 FROM generate_series(1, 1500) n`)
	const patience = time.Minute // other tests want the machine, too
	f.eventuallyWithin(patience, "jobs of 500 types complete", done(1500))
	f.exec(`INSERT INTO jobs (type, scheduled_for) SELECT t, d FROM unnest(array['urgent', 'kind 1', 'new kind']) t, unnest(array[now(), '2020-01-01', '1000-01-01 BC', now() - interval '5 s']) d`)
	f.eventuallyWithin(patience, "jobs that were due long ago complete", done(1512))
	f.exec(`INSERT INTO jobs (type) SELECT 'urgent' FROM generate_series(1, 4000)`)
	f.exec(`INSERT INTO jobs (type, priority) VALUES ('urgent', 1000)`)
	f.eventuallyWithin(patience, "all complete", done(5513))
	if late.Load() == 0 {
		t.Error("a job of a new, higher priority ran after the backlog")
	}
}

// Between two walks, too, jobs of one type run by priority.
func TestOrderOfKnownLevels(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	var got []int
	handler := gofunc.New(func(_ context.Context, job dispatch.Job) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, job.Priority)
		return nil, nil
	})
	rounds := 0
	f.start(dispatch.Config{
		Concurrency: 1, Poll: time.Hour, Types: map[string]dispatch.Type{"a": {Handler: handler}},
		Bell: scriptedBell(func(ctx context.Context, again recheck) (bool, error) {
			if rounds++; rounds > 2 {
				return true, nil
			}
			// First the levels become known, then both have a job.
			for _, priority := range []int{3, 0, -1} {
				f.exec(`INSERT INTO jobs (type, priority) VALUES ('a', $1)`, priority)
				if rounds == 1 {
					if _, err := again(ctx, true); err != nil {
						return false, err
					}
					f.eventually("it completes", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status <> 'completed'`) == 0 })
				}
			}
			_, err := again(ctx, false)
			return false, err
		}),
	})
	f.eventually("all complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 6 })
	mu.Lock()
	defer mu.Unlock()
	if want := []int{3, 0, -1, 3, 0, -1}; !slices.Equal(got, want) {
		t.Errorf("ran by priorities %v, want %v", got, want)
	}
}
