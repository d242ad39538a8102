package migrations_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

var roles atomic.Int64

// loginRole makes a role of its own for a test: roles belong to the cluster, which tests share.
func loginRole(t testing.TB, admin *pgx.Conn) string {
	t.Helper()
	role := fmt.Sprintf("pgbell_test_%d_%d", os.Getpid(), roles.Add(1))
	run(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret'", role))
	database := admin.Config().Copy()
	t.Cleanup(func() {
		conn, err := pgx.ConnectConfig(context.Background(), database)
		if err != nil {
			t.Errorf("drop role: %v", err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), fmt.Sprintf("DROP OWNED BY %s CASCADE; DROP ROLE %[1]s", role)); err != nil {
			t.Errorf("drop role: %v", err)
		}
	})
	return role
}

// as connects as a role that loginRole made.
func as(t testing.TB, database, role string) *pgx.Conn {
	t.Helper()
	parsed, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword(role, "secret")
	return connect(t, parsed.String())
}

func member(t testing.TB, database, of string) *pgx.Conn {
	t.Helper()
	admin := connect(t, database)
	role := loginRole(t, admin)
	run(t, admin, fmt.Sprintf("GRANT %s TO %s", of, role))
	return as(t, database, role)
}

func TestProducer(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn := member(t, database, "pgbell_producer")
	run(t, conn, "INSERT INTO jobs (id, type, payload, status, priority, attempts, max_attempts, scheduled_for, unique_key, timeout, metadata) "+
		"VALUES (gen_random_uuid(), 'a', '{}', 'pending', 1, 0, 5, now(), 'k', '1 min', '{}')")
	run(t, conn, "INSERT INTO jobs (type) SELECT 'a' FROM generate_series(1, 3) ON CONFLICT DO NOTHING")
	run(t, conn, "SELECT enqueue_job('a', unique_key => 'k'), ring_jobs()")
	for _, sql := range []string{
		"SELECT id FROM jobs", "INSERT INTO jobs (type) VALUES ('a') RETURNING id", "UPDATE jobs SET priority = 1", "DELETE FROM jobs",
		"INSERT INTO jobs (type, lease) VALUES ('a', gen_random_uuid())", "INSERT INTO jobs (type, worker_id) VALUES ('a', 1)",
		"INSERT INTO jobs (type, created_at) VALUES ('a', now())", "INSERT INTO jobs (type, crashes) VALUES ('a', 1)", "TRUNCATE jobs",
		"INSERT INTO jobs (type, status) VALUES ('a', 'processing')", "INSERT INTO jobs (type, status) VALUES ('a', 'completed')",
		"INSERT INTO jobs (type, attempts) VALUES ('a', 1)",
		"SELECT claim_jobs()", "SELECT cancel_job(gen_random_uuid())", "SELECT retry_job(gen_random_uuid())", "SELECT pause_type('a')", "SELECT resume_type('a')",
		"SELECT complete_job(gen_random_uuid(), gen_random_uuid())", "SELECT fail_job(gen_random_uuid(), gen_random_uuid(), 'x')",
		"SELECT heartbeat_job(gen_random_uuid(), gen_random_uuid())", "SELECT jobs_access()",
		"SELECT FROM job_errors", "SELECT FROM job_workers", "INSERT INTO job_types (type) VALUES ('a')", "SELECT FROM job_settings", "SELECT FROM pgbell_migrations",
	} {
		refused(t, conn, "42501", "", sql)
	}
	if n := one[int](t, connect(t, database), "SELECT count(*) FROM jobs"); n != 4 {
		t.Errorf("%d jobs, not 4", n)
	}
}

func TestWorker(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn := member(t, database, "pgbell_worker")
	for _, sql := range []string{
		"INSERT INTO jobs (type) VALUES ('a'), ('a'), ('a') RETURNING id",
		"INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after) VALUES ('w', 'v', 2, 1, '{*}', '15 s', '1 s') RETURNING id",
		"UPDATE job_workers SET heartbeat_at = now()",
		"SELECT enqueue_job('b')", "CREATE TEMP TABLE claimed AS SELECT * FROM claim_jobs(3)",
		"SELECT heartbeat_job(id, lease), complete_job(id, lease) FROM (SELECT * FROM claimed LIMIT 1) c",
		"SELECT fail_job(id, lease, 'x') FROM (SELECT * FROM claimed OFFSET 1 LIMIT 1) c",
		"SELECT cancel_job(id) FROM (SELECT * FROM claimed OFFSET 2) c", "SELECT retry_job(id) FROM jobs WHERE status = 'completed'",
		"SELECT pause_type('a', 'why'), resume_type('a'), ring_jobs()", "UPDATE job_settings SET value = '20 min' WHERE name = 'manual_lease'",
		"SELECT FROM pgbell_migrations", "DELETE FROM job_errors", "DELETE FROM job_types", "DELETE FROM jobs", "DELETE FROM job_workers",
	} {
		if tag, err := conn.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 {
			t.Errorf("%s: %v, %v", sql, tag, err)
		}
	}
	for _, sql := range []string{"UPDATE pgbell_migrations SET version = 1", "SELECT jobs_access()", "TRUNCATE jobs", "DROP TABLE jobs", "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY"} {
		refused(t, conn, "42501", "", sql)
	}
}

func TestStranger(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	admin := connect(t, database)
	role := loginRole(t, admin)
	conn := as(t, database, role)
	every := one[[]string](t, admin, `SELECT array_agg(format('SELECT FROM %I', relname)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`)
	every = append(every, one[[]string](t, admin, `SELECT array_agg(format('SELECT %I(%s)', proname, (SELECT string_agg('NULL::' || t::regtype, ', ') FROM unnest(proargtypes) t)))
		FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype`)...)
	if len(every) < 20 {
		t.Fatalf("found only %d tables and functions", len(every))
	}
	for _, sql := range append(every, "INSERT INTO jobs (type) VALUES ('a')") {
		refused(t, conn, "42501", "permission denied", sql)
	}
	// Even with rights on the table, row security shows it nothing.
	run(t, admin, "INSERT INTO jobs (type) VALUES ('a')")
	run(t, admin, "GRANT ALL ON jobs TO "+role)
	if n := one[int](t, conn, "SELECT count(*) FROM jobs"); n != 0 {
		t.Errorf("it sees %d rows", n)
	}
	refused(t, conn, "42501", "row-level security", "INSERT INTO jobs (type) VALUES ('a')")
}

// ownServer starts one for a test that makes roles, which belong to the cluster.
func ownServer(t testing.TB) string {
	t.Helper()
	server, err := postgres.Start(t.Context(), postgres.Options{})
	if err != nil {
		t.Fatalf("start a server: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	})
	return server.URL("postgres")
}

func TestSupabaseRoles(t *testing.T) {
	t.Parallel()
	admin := direct(t, ownServer(t))
	// As Supabase sets up a project.
	run(t, admin, `CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS;
		GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role`)
	run(t, admin, recipe)
	before := inventory(t, admin, "public")
	up(t, admin, migrations.Config{})
	for _, role := range []string{"anon", "authenticated"} {
		run(t, admin, "SET ROLE "+role)
		for _, sql := range []string{"SELECT FROM jobs", "INSERT INTO jobs (type) VALUES ('a')", "SELECT enqueue_job('a')", "SELECT claim_jobs()", "SELECT ring_jobs()",
			"SELECT FROM pgbell_migrations", "SELECT FROM job_errors", "SELECT nextval('job_workers_id_seq')", "SELECT jobs_access()"} {
			refused(t, admin, "42501", "permission denied", sql)
		}
		run(t, admin, "RESET ROLE")
	}
	run(t, admin, "SET ROLE service_role")
	run(t, admin, "SELECT enqueue_job('a')")
	if n := one[int](t, admin, "SELECT count(*) FROM claim_jobs()"); n != 1 {
		t.Errorf("service_role claimed %d jobs", n)
	}
	run(t, admin, "UPDATE jobs SET status = 'completed', completed_at = now(), updated_at = now()")
	run(t, admin, "RESET ROLE")

	// A policy of the application's own, with rights to match, is meant and stays.
	run(t, admin, "GRANT SELECT (id, status) ON jobs TO authenticated; CREATE POLICY mine ON jobs FOR SELECT TO authenticated USING (true)")
	run(t, admin, "SELECT jobs_access()")
	run(t, admin, "SET ROLE authenticated")
	if n := one[int](t, admin, "SELECT count(status) FROM jobs"); n != 1 {
		t.Errorf("authenticated sees %d jobs", n)
	}
	run(t, admin, "RESET ROLE; DROP POLICY mine ON jobs; REVOKE ALL ON jobs FROM authenticated; DELETE FROM jobs")
	if err := migrations.Down(t.Context(), admin, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Fatal(err)
	}
	if after := strings.Replace(inventory(t, admin, "public"), ",cancelled}", "}", 1); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Whoever migrates may not be allowed to make roles. An administrator makes them later, and the next Up gives them their rights.
func TestRolesMadeLater(t *testing.T) {
	t.Parallel()
	database := ownServer(t)
	admin := direct(t, database)
	run(t, admin, "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE SCHEMA app AUTHORIZATION app")
	conn := as(t, database, "app")
	up(t, conn, migrations.Config{Schema: "app"})
	if n := one[int](t, conn, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgbell%'") + one[int](t, conn, "SELECT count(*) FROM pg_policy"); n != 0 {
		t.Errorf("%d roles or policies", n)
	}
	run(t, conn, "INSERT INTO app.jobs (type) VALUES ('a')")

	run(t, admin, "CREATE ROLE pgbell_producer; CREATE ROLE pgbell_worker")
	up(t, conn, migrations.Config{Schema: "app"})
	if n := one[int](t, conn, "SELECT count(*) FROM pg_policy"); n != 7 {
		t.Errorf("%d policies, not 7", n)
	}
	run(t, admin, "SET ROLE pgbell_producer; INSERT INTO app.jobs (type) VALUES ('a'); RESET ROLE; SET ROLE pgbell_worker")
	if n := one[int](t, admin, "SELECT count(*) FROM app.claim_jobs()"); n != 2 {
		t.Errorf("claimed %d jobs, not 2", n)
	}
	// Nothing is new: rights that an owner takes away since then stay away.
	run(t, conn, "REVOKE ALL ON app.jobs FROM pgbell_producer")
	up(t, conn, migrations.Config{Schema: "app"})
	run(t, admin, "RESET ROLE; SET ROLE pgbell_producer")
	refused(t, admin, "42501", "permission denied", "INSERT INTO app.jobs (type) VALUES ('a')")
}

// Giving rights again takes no lock that an open transaction is in the way of.
func TestRightsAgainTakeNoTableLock(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn, holder := direct(t, database), direct(t, database)
	run(t, holder, "BEGIN; INSERT INTO jobs (type) VALUES ('a')")
	run(t, conn, "SET lock_timeout = '200ms'")
	run(t, conn, "SELECT jobs_access()")
}
