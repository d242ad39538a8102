package listener_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

const (
	countSleepers = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND mode = 'ShareLock'
	  AND classid = 'jobs'::regclass AND objid::bigint::bit(32)::int BETWEEN -8 AND -1
	  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	countUnannounced = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
	  AND classid = 'jobs'::regclass AND objid = 0
	  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
)

// sleeping is a call of Sleep under way.
type sleeping struct {
	result   chan bool
	rechecks chan bool // thorough or not, of each recheck so far
}

// beginSleep calls Sleep with a recheck that finds nothing, until the test ends.
func (r *running) beginSleep(t *testing.T) *sleeping {
	t.Helper()
	s := &sleeping{make(chan bool, 1), make(chan bool, 1e5)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.result:
		case <-time.After(patience):
			t.Error("Sleep did not return")
		}
	})
	go func() {
		asleep, _ := r.Sleep(ctx, func(_ context.Context, thorough bool) (bool, error) {
			s.rechecks <- thorough
			return false, nil
		})
		s.result <- asleep
		close(s.result)
	}()
	return s
}

func TestSleep(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	conn := connect(t, url)
	thorough := 0
	expect := func(wantAsleep bool, wantErr error, wantThorough int, found bool, failure error) {
		t.Helper()
		thorough = 0
		asleep, err := l.Sleep(t.Context(), func(_ context.Context, is bool) (bool, error) {
			if !is {
				return false, nil
			}
			thorough++
			return found, failure
		})
		if asleep != wantAsleep || !errors.Is(err, wantErr) || thorough != wantThorough {
			t.Errorf("Sleep = %v, %v after %d thorough rechecks, want %v, %v after %d", asleep, err, thorough, wantAsleep, wantErr, wantThorough)
		}
	}
	l.awaitHeard(t)
	broken := errors.New("broken")
	expect(false, nil, 1, true, nil)        // found work
	expect(false, broken, 1, false, broken) // could not look
	expect(true, nil, 1, false, nil)        // nothing there
	expect(true, nil, 0, true, nil)         // asleep ever since
	if held := query[int](t, conn, countSleepers); held != 8 {
		t.Errorf("%d keys of S are held, want all 8", held)
	}
	l.Awake()
	expect(true, nil, 0, true, nil)

	for _, lost := range []string{"pgbell listener", "pgbell bell"} {
		before := value(t, l, "pgbell_listener_deaf_periods_total")
		run(t, conn, terminate, lost)
		await(t, "deaf and heard again", func() bool {
			return value(t, l, "pgbell_listener_deaf_periods_total") == before+1 && !l.Deaf()
		})
		expect(true, nil, 1, false, nil)
		expect(true, nil, 0, false, nil)
		if held := query[int](t, conn, countSleepers); held != 8 {
			t.Errorf("%d keys of S are held, want all 8", held)
		}
	}

	done, cancel := context.WithCancel(t.Context())
	cancel()
	if asleep, err := l.Sleep(done, nothing); asleep || !errors.Is(err, context.Canceled) {
		t.Errorf("Sleep with a context that is done = %v, %v", asleep, err)
	}
}

func TestUnannouncedTransactionIsWaitedFor(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	early, late := connect(t, url), connect(t, url)
	for _, conn := range []*pgx.Conn{early, late} {
		run(t, conn, "BEGIN")
		run(t, conn, insertJob)
	}
	s := l.beginSleep(t)
	await(t, "S is held", func() bool { return l.Health().Asleep })
	if asleep := <-s.result; !asleep {
		t.Fatal("not asleep")
	}
	// The ends of both are told, although neither rings.
	for _, conn := range []*pgx.Conn{early, late} {
		drainRings(l)
		run(t, conn, "COMMIT")
		l.awaitRing(t)
	}
	if rings := value(t, l, "pgbell_listener_rings_total"); rings != 0 {
		t.Errorf("%v rings were heard, want none", rings)
	}
	if waits := value(t, l, "pgbell_listener_unannounced_wait_seconds"); waits != 1 {
		t.Errorf("%v waits, want 1", waits)
	}
	// Rows of before are looked for once more.
	thorough := 0
	if asleep, err := l.Sleep(t.Context(), func(_ context.Context, is bool) (bool, error) { thorough++; return false, nil }); !asleep || err != nil || thorough != 1 {
		t.Errorf("Sleep = %v, %v after %d rechecks, want asleep after 1", asleep, err, thorough)
	}
	run(t, early, insertJob)
	l.awaitRing(t)
}

// Rings that come too fast have S released, so that inserts are silent; when it is quiet again, it is taken again.
func TestFloodIsSilent(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute, AwakeAbove: 50, Quiet: 300 * time.Millisecond})
	l.sleep(t)
	conn := connect(t, url)
	await(t, "S is released", func() bool {
		run(t, conn, insertJob)
		return query[int](t, conn, countSleepers) == 0
	})
	l.awaitRing(t)
	heard := value(t, l, "pgbell_listener_rings_total")
	for range 100 {
		run(t, conn, insertJob)
	}
	if now := value(t, l, "pgbell_listener_rings_total"); now != heard {
		t.Errorf("%v inserts rang though nobody sleeps", now-heard)
	}
	// A poll finds them. Busy until now, it has to be quiet for a time from here on, however long ago the flood was.
	l.Awake()
	asleep, err := l.Sleep(t.Context(), func(context.Context, bool) (bool, error) { return true, nil })
	if asleep || err != nil {
		t.Errorf("Sleep = %v, %v though there is work", asleep, err)
	}
	s := l.beginSleep(t)
	if asleep := <-s.result; !asleep {
		t.Fatal("not asleep after the flood")
	}
	polls, thorough := 0, 0
	for range len(s.rechecks) {
		if <-s.rechecks {
			thorough++
		} else {
			polls++
		}
	}
	if polls == 0 || thorough != 1 {
		t.Errorf("%d polls and %d thorough rechecks, want some and 1", polls, thorough)
	}
	if rushes := value(t, l, "pgbell_listener_rushes_total"); rushes != 1 {
		t.Errorf("%v rushes, want 1", rushes)
	}
	run(t, conn, insertJob)
	l.awaitRing(t)
}

// A try for S that fails, as for an insert's probe, is made again, with what was taken kept. Who keeps it for long is named.
func TestSleepersLockIsTriedAgain(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn := connect(t, with(t, url, "application_name", "intruder"))
	run(t, conn, `SELECT pg_advisory_lock('jobs'::regclass::oid::int4, -3)`)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	s := l.beginSleep(t)
	await(t, "the other keys are taken", func() bool { return query[int](t, conn, countSleepers) == 7 })
	if l.Health().Asleep {
		t.Error("asleep with a part of S")
	}
	await(t, "it is named", func() bool { return len(l.log.lines(t, "warn")) > 0 })
	if named := l.log.lines(t, "warn")[0]; named["application_name"] != "intruder" || named["pid"] != float64(conn.PgConn().PID()) {
		t.Errorf("named as %v", named)
	}
	run(t, conn, `SELECT pg_advisory_unlock('jobs'::regclass::oid::int4, -3)`)
	if asleep := <-s.result; !asleep || query[int](t, conn, countSleepers) != 8 {
		t.Error("not asleep")
	}
}

func TestPreparedTransactionIsWaitedFor(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn, open := connect(t, url), connect(t, url)
	run(t, open, "BEGIN")
	run(t, open, insertJob)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	s := l.beginSleep(t)
	if asleep := <-s.result; !asleep {
		t.Fatal("not asleep")
	}
	name := "'" + query[string](t, conn, `SELECT current_database()`) + "'"
	run(t, open, "PREPARE TRANSACTION "+name)
	waiting := value(t, l, "pgbell_listener_unannounced_seconds")
	await(t, "it is waited for in vain", func() bool {
		return value(t, l, "pgbell_listener_unannounced_seconds") > waiting+0.2
	})
	drainRings(l)
	run(t, conn, "COMMIT PREPARED "+name)
	l.awaitRing(t)
	await(t, "nobody is waited for", func() bool { return value(t, l, "pgbell_listener_unannounced_seconds") == 0 })
}

// One is named for as long as it lasts, and then another; each once in the log, but not all of a crowd at a time.
func TestLongTransactionIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	open := map[string]*pgx.Conn{}
	for _, name := range []string{"nightly-import", "monthly-import"} {
		open[name] = connect(t, with(t, url, "application_name", name))
		run(t, open[name], "BEGIN")
		run(t, open[name], insertJob)
	}
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	if asleep := <-l.beginSleep(t).result; !asleep {
		t.Fatal("not asleep")
	}
	for left := 2; left > 0; left-- {
		var name string
		await(t, "one that is open is named", func() bool {
			for name = range open {
				if strings.Contains(l.Health().HeldUpBy, name) {
					return true
				}
			}
			return false
		})
		warnings := l.log.lines(t, "warn")
		if len(warnings) != 3-left {
			t.Fatalf("%d warnings while %d transactions are left", len(warnings), left)
		}
		if last := warnings[2-left]; last["application_name"] != name || last["pid"] != float64(open[name].PgConn().PID()) || last["transactions"] != float64(left) {
			t.Errorf("%s is named in Health, and in the log %v", name, last)
		}
		run(t, open[name], "ROLLBACK")
		delete(open, name)
	}
	await(t, "it is forgotten", func() bool { return l.Health().HeldUpBy == "" })
}

func TestSleepersLockFollowsTheTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn := connect(t, url)
	l := start(t, listener.Config{URL: url, CanaryInterval: 50 * time.Millisecond})
	l.sleep(t)
	run(t, conn, `DROP TABLE jobs CASCADE`)
	run(t, conn, `CREATE TABLE jobs (id int)`)
	l.awaitRing(t)
	await(t, "asleep by the new table", func() bool {
		asleep, err := l.Sleep(t.Context(), nothing)
		return asleep && err == nil && query[int](t, conn, countSleepers) == 8
	})
	if held := query[int](t, conn, countAdvisory); held != 8 {
		t.Errorf("%d advisory locks, want the 8 of the new table", held)
	}
}

func drainRings(l *running) {
	select {
	case <-l.Rings():
	default:
	}
}
