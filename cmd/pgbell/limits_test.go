package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestShares(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most, functions, inURL, work, sqlfunc int
	}{
		{30, 0, 0, 8, 0},
		{30, 8, 0, 8, 8},
		{30, 60, 0, 8, 18},
		{9, 0, 0, 5, 0},
		{9, 50, 0, 4, 1},
		{12, 50, 0, 7, 1},
		{30, 50, 4, 4, 4},
		{30, 10, 40, 25, 1},
		{100, 50, 0, 8, 50},
	} {
		text := fmt.Sprintf("database: {max_conns: %d}\nhandlers: {x: {webhook: {url: 'http://127.0.0.1:1'}}}\n", c.most)
		if c.functions > 0 {
			text = fmt.Sprintf("database: {max_conns: %d}\nhandlers: {x: {sqlfunc: {function: f}, concurrency: %d}}\n", c.most, c.functions)
		}
		work, functions := shares(loadText(t, text), c.inURL)
		if work != c.work || functions != c.sqlfunc {
			t.Errorf("%+v: got %d and %d", c, work, functions)
		}
		if all := work + functions + listenConns + probeConns; all > c.most {
			t.Errorf("%+v: %d connections", c, all)
		}
	}
}

// sleepy is a function whose jobs each take a connection for a while.
const sleepy = `CREATE FUNCTION sleepy(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(0.2) $$`

const backends = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgbell %'`

func query[T any](t *testing.T, pool *pgxpool.Pool, sql string) (value T) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func statement(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// With the fewest connections that can be configured all kinds of work go on, and there are no more.
func TestFewestConnections(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	statement(t, pool, sleepy)
	s := runSidecar(t, databaseURL, "database: {max_conns: 9}\nhandlers: {f: {sqlfunc: {function: sleepy}}, t: {subprocess: {command: ['true']}}}\n")
	s.awaitReady()
	statement(t, pool, "INSERT INTO jobs (type) SELECT CASE n % 10 WHEN 0 THEN 'f' ELSE 't' END FROM generate_series(1, 100) n")
	most := 0
	eventually(t, "all jobs to end", func() bool {
		most = max(most, query[int](t, pool, backends))
		s.get("/metrics")
		s.get("/readyz")
		return query[bool](t, pool, "SELECT bool_and(status = 'completed' AND attempts = 1) FROM jobs")
	})
	if most > 9 || most < 5 {
		t.Errorf("%d connections", most)
	}
	if len(s.logged("fewer SQL functions run at once than their handlers' concurrency says: database.max_conns bounds them")) != 1 {
		t.Error("it doesn't say that fewer functions run at once")
	}
}

// A role that may have fewer connections than the sidecar takes: it says so, listens first, and goes on with what it has.
func TestConnectionLimitOfTheRole(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	role := fmt.Sprintf("few_%d", time.Now().UnixNano())
	statement(t, pool, "CREATE ROLE "+role+" LOGIN PASSWORD 'few' CONNECTION LIMIT 4")
	statement(t, pool, "GRANT pgbell_worker TO "+role)
	t.Cleanup(func() {
		// The database is dropped, with its connections, later: what is granted has to go first.
		_, _ = pool.Exec(context.WithoutCancel(t.Context()), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+role+"'")
		_, _ = pool.Exec(context.WithoutCancel(t.Context()), "DROP ROLE "+role)
	})
	limited, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	limited.User = url.UserPassword(role, "few")
	s := runSidecar(t, limited.String(), "handlers: {t: {subprocess: {command: ['true']}}}\n")
	eventually(t, "the bell to be heard", func() bool {
		_, body := s.get("/readyz")
		return strings.Contains(body, `"heard":true`)
	})
	statement(t, pool, "INSERT INTO jobs (type) SELECT 't' FROM generate_series(1, 300)")
	eventually(t, "all jobs to end", func() bool {
		s.get("/metrics")
		return query[bool](t, pool, "SELECT bool_and(status = 'completed' AND attempts = 1) FROM jobs")
	})
	if n := len(s.logged("database statement failed, trying again")); n > 4 {
		t.Errorf("it says %d times that it is short of connections", n)
	}
	if code, _ := s.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
}

// While a stranger has the table locked, probes and scrapes answer and say so, and leave nothing waiting.
func TestHealthWhileTheTableIsLocked(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	s := runSidecar(t, databaseURL, "lease_time: 6s\nhandlers: {t: {subprocess: {command: ['true']}}}\n")
	s.awaitReady()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "SELECT ring_jobs()"); err != nil {
		t.Fatal(err)
	}
	most := 0
	eventually(t, "readiness says what is up", func() bool {
		s.get("/metrics")
		most = max(most, query[int](t, pool, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))
		code, body := s.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "claim jobs: ") && strings.Contains(body, "jobs can't be claimed")
	})
	if most > 8 {
		t.Errorf("%d server processes waited", most)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitReady()
}

// A SQL function ends soon after its sidecar was killed: its locks would hold up the next attempt.
func TestFunctionsEndWithTheirSidecar(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	statement(t, pool, `CREATE FUNCTION slow(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(600) $$`)
	s := runSidecar(t, databaseURL, "handlers: {f: {sqlfunc: {function: slow}}}\n")
	s.awaitReady()
	statement(t, pool, "INSERT INTO jobs (type) VALUES ('f')")
	const running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
	eventually(t, "the function to run", func() bool { return query[int](t, pool, running) == 1 })
	s.signal(syscall.SIGKILL)
	killed := time.Now()
	eventually(t, "the function to end", func() bool { return query[int](t, pool, running) == 0 })
	t.Logf("it ended after %s", time.Since(killed).Round(time.Millisecond))
}

// A lock that somebody holds at the start is waited for, again and again.
func TestLockAtTheStart(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE pgbell_migrations"); err != nil {
		t.Fatal(err)
	}
	s := runSidecar(t, databaseURL, "handlers: {t: {subprocess: {command: ['true']}}}\n")
	s.awaitLog("waiting for the database")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitReady()
}
