package dispatch

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
)

type idleHandler struct{}

func (idleHandler) Run(context.Context, Job) Result { return Done(nil) }

// silentBell is heard, and never rings.
type silentBell struct{ noBell }

func (silentBell) Deaf() bool       { return false }
func (silentBell) Hearings() uint64 { return 1 }

// sent counts what a pool says to the server: each statement or batch outside a transaction of ours is one.
type sent struct {
	mu       sync.Mutex
	surveys  int
	anything []time.Time
}

func (s *sent) note(survey bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anything = append(s.anything, time.Now())
	if survey {
		s.surveys++
	}
}

func (s *sent) count() (all, surveys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.anything), s.surveys
}

func (s *sent) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.note(false)
	return ctx
}
func (s *sent) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (s *sent) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	s.note(data.Batch.Len() > 2)
	return ctx
}
func (s *sent) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (s *sent) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// surveyed is a Dispatcher for type own that doesn't run, and a connection beside it.
func surveyed(t *testing.T) (*reaper, *sent, *pgx.Conn) {
	t.Helper()
	url := pgtest.Migrated(t)
	config, err := pgxpool.ParseConfig(pgtest.PoolURL(url))
	if err != nil {
		t.Fatal(err)
	}
	said := &sent{}
	config.ConnConfig.Tracer = said
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d, err := New(pool, Config{Bell: silentBell{}, Types: map[string]Type{"own": {Handler: idleHandler{}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.reaping.release)
	t.Cleanup(d.beats.release)
	return &reaper{Dispatcher: d, suspicions: suspicions{}, calm: true}, said, connect(t, url)
}

// How long the reaper waits after a look, by what there is.
func TestReaperLooksWhenSomebodyMayHoldJobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		setUp    string
		from, to time.Duration
	}{
		{"nothing", `SELECT 1`, time.Minute, 68 * time.Second},
		{"due later, by us", `INSERT INTO jobs (type, scheduled_for) VALUES ('own', now() + interval '20 s')`, 19 * time.Second, 21 * time.Second},
		{"due later, by others", `INSERT INTO jobs (type, priority, scheduled_for)
			SELECT 'other', n, now() + n * interval '10 s' FROM generate_series(1, 50) n`, 9 * time.Second, 11 * time.Second},
		{"due and not taken yet", `INSERT INTO jobs (type) VALUES ('other')`, reapOften / 2, reapOften},
		{"nobody's type", `INSERT INTO jobs (type) VALUES ('nobody''s')`, time.Minute, 68 * time.Second},
		{"a paused type", `WITH p AS (SELECT pause_type('other')) INSERT INTO jobs (type) SELECT 'other' FROM p`, time.Minute, 68 * time.Second},
		{"claimed by hand", `INSERT INTO jobs (type, status, held_until) VALUES ('own', 'processing', now() + interval '30 s')`, 29 * time.Second, 30 * time.Second},
		{"past its time", `INSERT INTO jobs (type, status, held_until) VALUES ('own', 'processing', now() - interval '1 s')`, reapOften / 2, reapOften},
		{"held for ever", `INSERT INTO jobs (type, status, held_until) VALUES ('own', 'processing', 'infinity')`, time.Minute, 68 * time.Second},
		{"held by others", `INSERT INTO jobs (type, status, worker_id) SELECT 'other', 'processing', max(id) FROM job_workers`, 200 * time.Millisecond, reapOften},
		{"held by us", `INSERT INTO jobs (type, status, worker_id) SELECT 'own', 'processing', min(id) FROM job_workers`, time.Minute, 68 * time.Second},
		{"too many types", `INSERT INTO jobs (type, scheduled_for) SELECT 'type' || n, now() + interval '1 h' FROM generate_series(1, 1000) n`,
			reapSometimes - reapOften, reapSometimes},
		{"finished ones alone", `INSERT INTO jobs (type, status) VALUES ('own', 'completed'), ('own', 'failed')`, time.Minute, 68 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, said, conn := surveyed(t)
			if err := r.tryRegister(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, conn, `INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after)
				VALUES ('other', '', 1, 1, '{other}', '15 s', '1.5 s')`)
			run(t, conn, c.setUp)
			before, _ := said.count()
			if next := r.look(t.Context()); next < c.from || next > c.to {
				t.Errorf("looks again after %s, want %s to %s", next, c.from, c.to)
			}
			if c.from == time.Minute {
				if all, _ := said.count(); all != before+1 {
					t.Errorf("%d transactions, want 1", all-before)
				}
			}
		})
	}
}

// A job of ours may end as one that nobody holds, without a ring.
func TestReaperLooksWhileWeHoldJobs(t *testing.T) {
	t.Parallel()
	r, _, _ := surveyed(t)
	r.lanes.take([]*attempt{{job: Job{Type: "own"}, lane: r.lanes.of("own")}})
	if next := r.look(t.Context()); next > reapSometimes {
		t.Errorf("looks again after %s", next)
	}
}

// An idle Dispatcher, whose bell is heard: one survey, a heartbeat and what the fallback poll costs, and then nothing for as long
// as these allow. With one of each a minute, that is what it costs.
func TestIdleDispatcherIsQuiet(t *testing.T) {
	t.Parallel()
	r, said, _ := surveyed(t)
	d := r.Dispatcher
	if next := d.nextBeat(); next != idleBeat {
		t.Errorf("heartbeat after %s", next)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last, still := 0, time.Now()
	for time.Since(still) < 4*time.Second {
		select {
		case <-deadline:
			all, surveys := said.count()
			t.Fatalf("not quiet for 4 s within 20 s: %d transactions, %d surveys", all, surveys)
		case <-tick.C:
		}
		if all, _ := said.count(); all != last {
			last, still = all, time.Now()
		}
	}
	if all, surveys := said.count(); all > 10 || surveys == 0 {
		t.Errorf("%d transactions at the start, %d surveys", all, surveys)
	}
}
