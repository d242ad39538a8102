package main

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/internal/proxy"
	"github.com/pgbell/pgbell/migrations"
)

// noticedWithin is promised for the default settings.
const noticedWithin = 15 * time.Second

const (
	trueJobs    = "handlers: {t: {subprocess: {command: ['true']}}}\n"
	deafMessage = "bell is not heard: polling instead"
	mendNone    = "none needed: the connection is made anew"
)

// bellState is what /readyz says.
type bellState struct {
	Status, Reason string
	Bell           struct {
		Heard, Asleep bool
		Cause, Mend   string
		QueueFull     bool `json:"queue_full"`
	}
}

func (s *sidecar) bell() bellState {
	s.t.Helper()
	var state bellState
	if code, body := s.get("/readyz"); code != 0 {
		if err := json.Unmarshal([]byte(body), &state); err != nil {
			s.t.Fatalf("%v: %s", err, body)
		}
	}
	return state
}

// metric returns the value of a metric without labels.
func (s *sidecar) metric(name string) float64 {
	s.t.Helper()
	_, body := s.get("/metrics")
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		s.t.Fatalf("no metric %s", name)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

// awaitAsleep waits until inserts ring.
func (s *sidecar) awaitAsleep() {
	s.t.Helper()
	eventually(s.t, "the bell is heard, and inserts ring", func() bool {
		state := s.bell()
		return state.Bell.Heard && state.Bell.Asleep
	})
}

// awaitDeaf waits until the bell isn't heard, and looks whether all places say so, with one of the causes and the mend.
func (s *sidecar) awaitDeaf(since time.Time, mend string, causes ...string) {
	s.t.Helper()
	var line map[string]any
	eventually(s.t, "deafness is noticed", func() bool {
		lines := s.logged(deafMessage)
		if len(lines) > 0 {
			line = lines[0]
		}
		return line != nil
	})
	took := time.Since(since)
	s.t.Logf("noticed after %.1f s: %s", took.Seconds(), line["cause"])
	if took > noticedWithin {
		s.t.Errorf("noticed after %s", took)
	}
	if cause, _ := line["cause"].(string); !matchesOne(cause, causes) || line["mend"] != mend {
		s.t.Errorf("it was said: %v", line)
	}
	if lines := s.logged(deafMessage); len(lines) > 1 {
		s.t.Errorf("it was said %d times: %v", len(lines), lines)
	}
}

// awaitHealed waits until jobs run and then until the bell is heard again, and logs how long both took.
func (s *sidecar) awaitHealed(since time.Time, pool *pgxpool.Pool, jobs ...string) {
	s.t.Helper()
	for _, id := range jobs {
		awaitStatus(s.t, pool, id, "completed")
	}
	done := time.Since(since)
	s.awaitAsleep()
	s.t.Logf("jobs done after %.1f s, inserts ring after %.1f s", done.Seconds(), time.Since(since).Seconds())
	begun := time.Now()
	awaitStatus(s.t, pool, insert(s.t, pool, "t", "{}"), "completed")
	if took := time.Since(begun); took > 5*time.Second {
		s.t.Errorf("a job after that took %s", took)
	}
}

// What was sent gets lost and nothing is closed. New connections come about: what stands in between has forgotten the old ones.
func TestHalfOpenConnectionsAreNoticed(t *testing.T) {
	t.Parallel()
	const mend = mendNone + "; if it happens again and again, look for a firewall or NAT that forgets connections, or a server that hangs"
	const ear, bell = "the connection of the listener is half-open: no answer to a ping", "the connection of the bell is half-open: no answer to a ping"
	for name, fault := range map[string]struct {
		cut    func(*proxy.Proxy)
		causes []string
	}{
		"both directions":        {func(p *proxy.Proxy) { p.Cut(proxy.Both) }, []string{ear, bell}},
		"to the server":          {func(p *proxy.Proxy) { p.Cut(proxy.ToServer) }, []string{ear, bell}},
		"from the server":        {func(p *proxy.Proxy) { p.Cut(proxy.ToClient) }, []string{ear, bell}},
		"the listener's own one": {func(p *proxy.Proxy) { p.CutOnly("pgbell listener") }, []string{ear}},
		"the bell's own one":     {func(p *proxy.Proxy) { p.CutOnly("pgbell bell") }, []string{bell}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := pgtest.Migrated(t)
			pool := pgtest.DirectPool(t, direct)
			between, through, err := proxy.InFrontOf(t.Context(), direct)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = between.Close() })
			s := runSidecar(t, through, trueJobs)
			s.awaitAsleep()
			awaitStatus(t, pool, insert(t, pool, "t", "{}"), "completed") // connections are made, levels are known
			s.awaitAsleep()
			fault.cut(between)
			between.Mend()
			began := time.Now()
			job := insert(t, pool, "t", "{}")
			s.awaitDeaf(began, mend, fault.causes...)
			if s.metric("pgbell_listener_deaf_periods_total") != 1 {
				t.Error("the deaf period isn't counted")
			}
			s.awaitHealed(began, pool, job)
		})
	}
}

func TestTerminatedListenerIsNoticed(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"listener", "bell"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.DirectPool(t, pgtest.Migrated(t))
			s := runSidecar(t, pool.Config().ConnString(), trueJobs)
			s.awaitAsleep()
			began := time.Now()
			if _, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'pgbell ' || $1`, role); err != nil {
				t.Fatal(err)
			}
			job := insert(t, pool, "t", "{}")
			s.awaitDeaf(began, mendNone, "the connection of the "+role+" was lost: *")
			s.awaitHealed(began, pool, job)
		})
	}
}

func TestTransactionPoolerIsNoticed(t *testing.T) {
	t.Parallel()
	direct := pgtest.Migrated(t)
	pool := pgtest.DirectPool(t, direct)
	s := runSidecar(t, throughPooler(t, direct), trueJobs)
	s.addr()
	began := time.Now()
	job := insert(t, pool, "t", "{}")
	s.awaitDeaf(began, "set database.listen_url to a direct connection, or to a pooler's session mode", "a transaction pooler stands in between *")
	awaitStatus(t, pool, job, "completed")
	if state := s.bell(); state.Status != "ready" || state.Bell.Heard || !strings.HasPrefix(state.Bell.Cause, "a transaction pooler") {
		t.Errorf("/readyz: %+v", state)
	}
	if s.metric("pgbell_listener_heard") != 0 {
		t.Error("the metric says that the bell is heard")
	}
}

// A session that LISTENs and has a transaction open keeps the queue of notifications from being emptied. Inserts ring until it
// is half full, and go on to succeed when it is full.
func TestFullQueueOfNotifications(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{Major: 17, Settings: map[string]string{"max_notify_queue_pages": "64"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	direct := server.URL("postgres")
	conn, err := pgx.Connect(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrations.Up(t.Context(), conn, migrations.Config{}); err != nil {
		t.Fatal(err)
	}
	pool := pgtest.DirectPool(t, direct)
	holder, filler := pgtest.DirectPool(t, direct), pgtest.DirectPool(t, direct)
	hold, err := holder.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	for _, statement := range []string{`LISTEN others`, `BEGIN`} {
		if _, err := hold.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	s := runSidecar(t, direct, trueJobs)
	s.awaitAsleep()
	fill := func(pages int) error {
		_, err := filler.Exec(t.Context(), `SELECT pg_notify('others', n || repeat('x', 7000)) FROM generate_series(1, $1) n`, pages)
		return err
	}
	if err := fill(40); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	jobs := []string{insert(t, pool, "t", "{}")}
	line := s.awaitLog("queue of notifications fills up: polling instead")
	t.Logf("noticed after %.1f s", time.Since(began).Seconds())
	const mend = "end the session that LISTENs and has a transaction open; the server's log names its process"
	if line["mend"] != mend || line["cause"] != "a session that LISTENs keeps a transaction open" {
		t.Errorf("it was said: %v", line)
	}
	if took := time.Since(began); took > noticedWithin {
		t.Errorf("noticed after %s", took)
	}
	eventually(t, "inserts don't ring", func() bool { state := s.bell(); return state.Bell.QueueFull && !state.Bell.Asleep })
	if usage := s.metric("pgbell_listener_queue_usage"); usage < 0.5 || usage > 1 {
		t.Errorf("usage %g", usage)
	}
	pages := 0
	for fill(1) == nil {
		if pages++; pages > 64 {
			t.Fatal("the queue doesn't fill up")
		}
	}
	full := time.Now()
	for range 200 {
		jobs = append(jobs, insert(t, pool, "t", "{}")) // fails the test if it fails
	}
	// Also where it would ring: somebody holds the lock of those who sleep.
	if _, err := holder.Exec(t.Context(), `SELECT pg_advisory_lock_shared('jobs'::regclass::int, key) FROM generate_series(-8, -1) key`); err != nil {
		t.Fatal(err)
	}
	jobs = append(jobs, insert(t, pool, "t", "{}"))
	s.awaitDeaf(full, mend, "the server's queue of notifications is full: *")
	jobs = append(jobs, insert(t, pool, "t", "{}"))
	for _, id := range jobs {
		awaitStatus(t, pool, id, "completed")
	}
	if _, err := hold.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	s.awaitHealed(time.Now(), pool)
}
