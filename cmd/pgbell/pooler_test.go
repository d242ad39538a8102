package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
)

// pooledSessions of the server are what the pooler shares out.
const pooledSessions = 3

// throughPooler puts a PgBouncer in transaction mode, which keeps no prepared statements, before a database.
func throughPooler(t *testing.T, databaseURL string) string {
	t.Helper()
	pooler, err := postgres.StartPooler(t.Context(), databaseURL, postgres.PoolerOptions{PoolSize: pooledSessions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pooler.Stop(); err != nil {
			t.Error(err)
		}
	})
	through, err := pooler.URL(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return through
}

// newPooler returns the URL through a PgBouncer with these settings, and what starts it.
func newPooler(t *testing.T, databaseURL, settings string) (through string, start func()) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatal("this test needs PgBouncer: apt-get install pgbouncer")
		}
	}
	server, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(t.TempDir(), "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=%s port=%d user=%s password='%s'\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\n"+
		"unix_socket_dir =\nauth_type = any\n%s", server.Host, server.Port, server.User, server.Password, port, settings)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", file}
	if os.Geteuid() == 0 { // it refuses to stay root
		args = append([]string{"-u", "nobody"}, args...)
	}
	address, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	address.Host = addr
	return address.String(), func() {
		t.Helper()
		pooler := exec.Command(program, args...)
		if err := pooler.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = pooler.Process.Kill()
			_ = pooler.Wait()
		})
		eventually(t, "pgbouncer", func() bool {
			conn, err := net.Dial("tcp", addr)
			return err == nil && conn.Close() == nil
		})
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probe.Close() }()
	return probe.Addr().String()
}

// Through a transaction pooler, jobs run with a direct listen_url and, deaf, without one; no statement fails.
func TestRunThroughPooler(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprintf("direct listen_url %v", direct), func(t *testing.T) {
			t.Parallel()
			databaseURL := pgtest.Migrated(t)
			pool := pgtest.DirectPool(t, databaseURL)
			environ := []string{}
			if direct {
				environ = append(environ, "PGBELL_LISTEN_URL="+databaseURL)
			}
			through := throughPooler(t, databaseURL)
			s := runSidecar(t, through, "handlers: {t: {subprocess: {command: ['true']}}}\n", environ...)
			s.awaitReady()
			s.awaitLog("database.url leads through a transaction pooler: no prepared statements are used")
			if _, err := pool.Exec(t.Context(), "INSERT INTO jobs (type) SELECT 't' FROM generate_series(1, 60)"); err != nil {
				t.Fatal(err)
			}
			left := 0
			eventually(t, "all jobs to end", func() bool {
				if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM jobs WHERE status <> 'completed'").Scan(&left); err != nil {
					t.Fatal(err)
				}
				return left == 0
			})
			if code, body := s.get("/readyz"); code != 200 || strings.Contains(body, `"heard":true`) != direct {
				t.Errorf("/readyz: %d %s", code, body)
			}
			s.signal(syscall.SIGTERM)
			if code := s.awaitExit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if failed := s.logged("database statement failed, trying again"); len(failed) > 0 {
				t.Errorf("statements failed: %v", failed)
			}
			if kept := keptInPool(t, pool, through); len(kept) > 0 {
				t.Errorf("sessions of the pool keep %q", kept)
			}
		})
	}
}

const poolerTypes = "handlers: {f: {sqlfunc: {function: quick}}, t: {subprocess: {command: ['true']}}}\n"

const quick = `CREATE FUNCTION quick(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$`

// The pooler comes up after the sidecar, its server connections die again and again, and nothing of a session stays behind in it.
func TestPoolerWithFaults(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	statement(t, pool, quick)
	through, start := newPooler(t, databaseURL, "pool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 0\n")
	s := runSidecar(t, through, poolerTypes, "PGBELL_LISTEN_URL="+databaseURL)
	s.awaitLog("waiting for the database")
	start()
	s.awaitReady()
	for range 10 {
		statement(t, pool, "INSERT INTO jobs (type) SELECT CASE n % 2 WHEN 0 THEN 'f' ELSE 't' END FROM generate_series(1, 20) n")
		statement(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name IN ('pgbell worker', 'pgbell sqlfunc', 'pgbell probe')`)
	}
	eventually(t, "all jobs to end", func() bool {
		return query[bool](t, pool, "SELECT count(*) = 200 AND bool_and(status IN ('completed', 'pending')) AND count(*) FILTER (WHERE status = 'pending' AND attempts = 0) = 0 FROM jobs")
	})
	if failed := query[int](t, pool, "SELECT count(*) FROM jobs WHERE error ~ 'prepared statement'"); failed > 0 || strings.Contains(s.log(), "prepared statement \"") {
		t.Errorf("%d jobs failed by prepared statements", failed)
	}
	config, err := pgx.ParseConfig(through)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t.Context(), conn)
	for range 8 {
		var left string
		if err := conn.QueryRow(t.Context(), `SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('jit'),
			current_setting('enable_seqscan'),
			(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if want := "0 0 on on 0 0 0"; left != want {
			t.Errorf("left in the pooler: %s, want %s", left, want)
		}
	}
}

func TestPoolerInStatementMode(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	through, start := newPooler(t, databaseURL, "pool_mode = statement\n")
	start()
	s := runSidecar(t, through, poolerTypes, "PGBELL_LISTEN_URL="+databaseURL)
	if code := s.awaitExit(); code != exitDatabase {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(s.log(), "statement mode") || !strings.Contains(s.log(), "pool_mode = transaction") {
		t.Error("it doesn't say why")
	}
}

// A pooler that takes no more clients: the sidecar says so and works with what it has, or waits for its first connection.
func TestPoolerTakesNoMoreClients(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	statement(t, pool, quick)
	through, start := newPooler(t, databaseURL, "pool_mode = transaction\nmax_client_conn = 2\n")
	start()
	var strangers []*pgx.Conn
	for range 2 {
		stranger, err := pgx.Connect(t.Context(), through)
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, stranger)
	}
	s := runSidecar(t, through, poolerTypes, "PGBELL_LISTEN_URL="+databaseURL)
	s.awaitLog("waiting for the database")
	for _, stranger := range strangers {
		closeConn(t.Context(), stranger)
	}
	statement(t, pool, "INSERT INTO jobs (type) SELECT 't' FROM generate_series(1, 100) n")
	eventually(t, "all jobs to end", func() bool {
		return query[bool](t, pool, "SELECT bool_and(status = 'completed' AND attempts = 1) FROM jobs")
	})
}

// keptInPool says what the sidecar that has ended left in the pooler's sessions, which are others' now.
func keptInPool(t *testing.T, direct *pgxpool.Pool, through string) []string {
	t.Helper()
	var used []int32
	// Those of the listener and the bell went past the pooler, and may not be gone yet.
	if err := direct.QueryRow(t.Context(), `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'pgbell%'
			AND application_name NOT IN ('pgbell listener', 'pgbell bell')`).Scan(&used); err != nil {
		t.Fatal(err)
	}
	if len(used) == 0 {
		t.Fatal("no session of the sidecar's work is left in the pool")
	}
	config, err := pgx.ParseConfig(through)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	seen := 0
	var kept []string
	for range pooledSessions {
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		// A transaction keeps its session, so that the next one gets another.
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		var pid int32
		var found []string
		// The settings left out are those that the pooler itself carries over from client to client.
		if err := conn.QueryRow(t.Context(), `SELECT pg_backend_pid(), ARRAY(
			SELECT 'setting ' || name || ' = ' || setting FROM pg_settings WHERE source = 'session'
				AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')
			UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements
			UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
			UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
			UNION ALL SELECT 'listen ' || pg_listening_channels())`).Scan(&pid, &found); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(used, pid) {
			seen++
			kept = append(kept, found...)
		}
	}
	if seen != len(used) {
		t.Errorf("looked at %d of the %d sessions that the sidecar used", seen, len(used))
	}
	return kept
}
