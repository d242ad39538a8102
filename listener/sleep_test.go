package listener_test

import (
	"context"
	"errors"
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

func drainRings(l *running) {
	select {
	case <-l.Rings():
	default:
	}
}
