package migrations_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

const (
	// How many transactions have inserted without ringing and are open.
	unannounced = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND objid = 0
		AND classid = 'jobs'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	advisoryLocks = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
)

// awakeBell hears, and holds nothing that makes inserts ring.
func awakeBell(t testing.TB, database string) *bell {
	t.Helper()
	b := &bell{conn: direct(t, database), sender: direct(t, database), channel: migrations.Channel("")}
	run(t, b.conn, "LISTEN "+pgx.Identifier{b.channel}.Sanitize())
	return b
}

// While nobody sleeps, inserts are silent, and each transaction says by U that it has inserted until it ends.
func TestSilence(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	b := awakeBell(t, database)
	conn, other := connect(t, database), connect(t, database)
	for _, step := range []struct {
		sql  string
		want int // transactions that hold U then
	}{
		{"INSERT INTO jobs (type) VALUES ('a')", 0},
		{"BEGIN", 0},
		{"SELECT claim_jobs()", 0},
		{"INSERT INTO jobs (type) SELECT 'a' FROM generate_series(1, 100)", 1},
		{"COMMIT", 0},
		{"BEGIN; INSERT INTO jobs (type) VALUES ('a')", 1},
		{"ROLLBACK", 0},
		// A savepoint that is rolled back takes its rows and its U with it; one that isn't leaves both.
		{"BEGIN; SAVEPOINT s; INSERT INTO jobs (type) VALUES ('a')", 1},
		{"ROLLBACK TO s", 0},
		{"INSERT INTO jobs (type) VALUES ('a')", 1},
		{"RELEASE s", 1},
		{"SAVEPOINT s; INSERT INTO jobs (type) VALUES ('a'); ROLLBACK TO s", 1},
		{"COMMIT", 0},
		{"BEGIN; UPDATE jobs SET status = 'pending' WHERE status = 'processing'", 1},
		{"COMMIT", 0},
		{"BEGIN; SELECT enqueue_job('a')", 1},
		{"COMMIT", 0},
		// Silenced, it promises nothing: a prepared transaction could hold U for days.
		{"BEGIN; SET LOCAL pgbell.ring = 'off'; INSERT INTO jobs (type) VALUES ('a')", 0},
		{"COMMIT", 0},
		{"BEGIN; INSERT INTO jobs (type) VALUES ('a'); PREPARE TRANSACTION 'silence'", 1},
		{"COMMIT PREPARED 'silence'", 0},
	} {
		run(t, conn, step.sql)
		if got := one[int](t, other, unannounced); got != step.want {
			t.Errorf("%s: %d transactions hold U, want %d", step.sql, got, step.want)
		}
	}
	if heard := b.heard(t); len(heard) > 0 {
		t.Errorf("%d rings though nobody sleeps", len(heard))
	}
	if left := one[int](t, other, advisoryLocks); left != 0 {
		t.Errorf("%d advisory locks are left", left)
	}
	// Resuming a type and ring_jobs don't ask.
	run(t, conn, "SELECT pause_type('a'), resume_type('a')")
	run(t, conn, "SELECT ring_jobs()")
	if heard := b.heard(t); len(heard) != 2 {
		t.Errorf("%d rings, want one each for a resumed type and ring_jobs", len(heard))
	}
}

// Each key of S alone makes those ring that probe it, and U's exclusive holder makes all ring.
func TestEachKeyOfTheBell(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	b := awakeBell(t, database)
	conn, sleeper := direct(t, database), direct(t, database)
	mine := one[int32](t, conn, "SELECT pg_backend_pid() | -8")
	for key := int32(-8); key <= 0; key++ {
		lock := fmt.Sprintf("('jobs'::regclass::oid::int4, %d)", key)
		take, release := "SELECT pg_advisory_lock_shared"+lock, "SELECT pg_advisory_unlock_shared"+lock
		if key == 0 {
			take, release = "SELECT pg_advisory_lock"+lock, "SELECT pg_advisory_unlock"+lock
		}
		run(t, sleeper, take)
		run(t, conn, "INSERT INTO jobs (type) VALUES ('a')")
		run(t, sleeper, release)
		want := 0
		if key == mine || key == 0 {
			want = 1
		}
		if heard := b.heard(t); len(heard) != want {
			t.Errorf("key %d held: %d rings of a session that probes %d, want %d", key, len(heard), mine, want)
		}
	}
}

// The function runs with the search_path of whoever inserts, and finds nothing by it.
func TestBellIgnoresSearchPath(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	b := listen(t, database, "")
	conn := connect(t, database)
	run(t, conn, `CREATE SCHEMA trap; SET search_path = trap, pg_catalog;
		CREATE FUNCTION trap.stop() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trapped''; END';
		CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT trap.stop()';
		CREATE FUNCTION trap.pg_try_advisory_lock(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT trap.stop(); SELECT true';
		CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT trap.stop(); SELECT true';
		CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = text, RIGHTARG = text);
		CREATE FUNCTION trap.pipe(int, int) RETURNS int LANGUAGE sql AS 'SELECT trap.stop(); SELECT 1';
		CREATE OPERATOR trap.| (FUNCTION = trap.pipe, LEFTARG = int, RIGHTARG = int)`)
	run(t, conn, "INSERT INTO public.jobs (type) VALUES ('a')")
	if heard := b.heard(t); len(heard) != 1 {
		t.Errorf("%d rings, want 1", len(heard))
	}
}
