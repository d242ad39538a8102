package dispatch_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
)

// smallest is the fixture with the smallest pool that a Dispatcher bears.
func (f fixture) smallest() fixture {
	f.url += "&pool_max_conns=4"
	if !strings.Contains(f.url, "?") {
		f.url = strings.Replace(f.url, "&", "?", 1)
	}
	return f
}

// lock takes a lock as a stranger, until the returned function is called.
func (f fixture) lock(table string) (release func()) {
	f.Helper()
	tx, err := f.pool.Begin(f.Context())
	if err == nil {
		_, err = tx.Exec(f.Context(), `LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`)
	}
	if err != nil {
		f.Fatalf("lock %s: %v", table, err)
	}
	return func() {
		f.Helper()
		if err := tx.Commit(f.Context()); err != nil {
			f.Fatal(err)
		}
	}
}

// gated is a type whose jobs run until the gate is opened.
func gated(gate <-chan struct{}) dispatch.Type {
	return dispatch.Type{Handler: gofunc.New(func(ctx context.Context, _ dispatch.Job) (any, error) {
		select {
		case <-gate:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})}
}

const (
	hangLease = 3 * time.Second
	// beatAge is how old the oldest heartbeat is, in seconds.
	beatAge = `SELECT coalesce(extract(epoch FROM clock_timestamp() - min(heartbeat_at)), 0)::int FROM job_workers WHERE dead_at IS NULL`
	waiting = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
)

// A stranger's lock on the table of jobs, for several lease times: heartbeats go on, few server processes wait for it, and what ended
// meanwhile is settled afterwards.
func TestJobsTableLockedByAStranger(t *testing.T) {
	t.Parallel()
	f := newFixture(t).smallest()
	gate := make(chan struct{})
	for range 2 {
		f.start(dispatch.Config{LeaseTime: hangLease, DeadAfter: time.Second, Types: map[string]dispatch.Type{"held": gated(gate)}})
	}
	f.exec(`INSERT INTO jobs (type) SELECT 'held' FROM generate_series(1, 40)`)
	f.eventually("all run", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'processing'`) == 40 })
	release := f.lock("jobs")
	close(gate)
	most, oldest := 0, 0
	until := time.Now().Add(3 * hangLease)
	f.eventually("the lock was there for long", func() bool {
		most, oldest = max(most, f.count(waiting)), max(oldest, f.count(beatAge))
		return time.Now().After(until)
	})
	release()
	f.eventually("all are settled", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 40 })
	t.Logf("at most %d server processes waited for the lock, the oldest heartbeat was %d s old", most, oldest)
	if most > 8 || most == 0 {
		t.Errorf("%d server processes waited for the lock", most)
	}
	if n := f.count(`SELECT count(*) FROM jobs WHERE attempts <> 1 OR crashes <> 0`) + f.count(`SELECT count(*) FROM job_workers WHERE dead_at IS NOT NULL`); n != 0 {
		t.Errorf("%d healthy jobs or workers were reaped", n)
	}
}

// While each settle hangs in the server, with the smallest pool, claims, heartbeats and the reaper get through.
func TestHungSettlesKeepNothingElseWaiting(t *testing.T) {
	t.Parallel()
	f := newFixture(t).smallest()
	f.exec(`CREATE TABLE gate (open bool); INSERT INTO gate VALUES (false);
		CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			WHILE NOT (SELECT open FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN new; END $$;
		CREATE TRIGGER hang BEFORE UPDATE ON jobs FOR EACH ROW WHEN (new.status = 'completed') EXECUTE FUNCTION hang()`)
	f.start(dispatch.Config{LeaseTime: hangLease, DeadAfter: time.Second, Types: map[string]dispatch.Type{
		"quick": {Handler: gofunc.New(func(context.Context, dispatch.Job) (any, error) { return nil, nil })}}})
	f.exec(`INSERT INTO jobs (type) SELECT 'quick' FROM generate_series(1, 500)`)
	f.eventually("all were claimed", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'processing'`) == 500 })

	const orphan = `INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after, heartbeat_at)
		VALUES ('gone', '', 2, 1, '{}', '1 s', '1 s', now() - interval '1 h')`
	oldest, until := 0, time.Now().Add(2*hangLease)
	for time.Now().Before(until) {
		f.exec(orphan)
		id := f.insert(`INSERT INTO jobs (type, status, attempts, lease, worker_id, started_at)
			SELECT 'other', 'processing', 1, gen_random_uuid(), max(id), now() FROM job_workers RETURNING id`)
		f.until(id, "pending")
		oldest = max(oldest, f.count(beatAge))
		f.exec(`INSERT INTO jobs (type) VALUES ('quick')`)
		f.eventually("it is claimed", func() bool {
			return f.count(`SELECT count(*) FROM jobs WHERE status = 'pending' AND type = 'quick'`) == 0
		})
	}
	if oldest >= int(hangLease.Seconds()) {
		t.Errorf("a heartbeat was %d s old", oldest)
	}
	f.exec(`UPDATE gate SET open = true`)
	f.eventually("all are settled", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE type = 'quick' AND status <> 'completed'`) == 0
	})
	if n := f.count(`SELECT count(*) FROM jobs WHERE type = 'quick' AND (attempts <> 1 OR crashes <> 0)`); n != 0 {
		t.Errorf("%d healthy jobs were reaped", n)
	}
}

// A lock on the table of workers keeps heartbeats from everybody, so that nobody can be taken for dead meanwhile. For less than the
// lease nobody notices; for longer, jobs are given back in time, and run again without having lost an attempt.
func TestWorkersTableLockedByAStranger(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		locked time.Duration
		again  bool
	}{"less than the lease": {hangLease / 2, false}, "longer than the lease": {2 * hangLease, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t).smallest()
			gate := make(chan struct{})
			var mu sync.Mutex
			ends := map[error]int{}
			kind := gated(gate)
			wait := kind.Handler
			kind.Handler = gofunc.New(func(ctx context.Context, job dispatch.Job) (any, error) {
				result := wait.Run(ctx, job)
				mu.Lock()
				defer mu.Unlock()
				ends[context.Cause(ctx)]++
				return nil, result.Err
			})
			f.start(dispatch.Config{LeaseTime: hangLease, DeadAfter: time.Second, Types: map[string]dispatch.Type{"held": kind}})
			f.exec(`INSERT INTO jobs (type) SELECT 'held' FROM generate_series(1, 10)`)
			f.eventually("all run", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'processing'`) == 10 })
			release := f.lock("job_workers")
			until := time.Now().Add(c.locked)
			f.eventually("the lock was there for long", func() bool { return time.Now().After(until) })
			release()
			close(gate)
			f.eventually("all are settled", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 10 })
			if n := f.count(`SELECT count(*) FROM jobs WHERE attempts <> 1 OR crashes <> 0`); n != 0 {
				t.Errorf("%d jobs lost an attempt", n)
			}
			mu.Lock()
			defer mu.Unlock()
			for cause := range ends {
				if cause != nil && !errors.Is(cause, dispatch.ErrLeaseEnding) {
					t.Errorf("jobs were cancelled by %v", cause)
				}
			}
			if again := ends[dispatch.ErrLeaseEnding] > 0; again != c.again {
				t.Errorf("given back is %v, want %v: %v", again, c.again, ends)
			}
		})
	}
}
