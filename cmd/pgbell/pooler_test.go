package main

import (
	"context"
	"fmt"
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
			kept := keptInPool(t, pool, through)
			if !direct {
				// Only a LISTEN without an echo tells that there is no hearing through this pooler.
				kept = slices.DeleteFunc(kept, func(one string) bool { return one == "listen pgbell_public" })
			}
			if len(kept) > 0 {
				t.Errorf("sessions of the pool keep %q", kept)
			}
		})
	}
}

// keptInPool says what the sidecar that has ended left in the pooler's sessions, which are others' now.
func keptInPool(t *testing.T, direct *pgxpool.Pool, through string) []string {
	t.Helper()
	var used []int32
	if err := direct.QueryRow(t.Context(), `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'pgbell%'`).Scan(&used); err != nil {
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
