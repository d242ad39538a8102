package migrations_test

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// sleep takes S on the jobs table $1.
const sleep = "SELECT pg_try_advisory_lock_shared($1::text::regclass::oid::int4, key) FROM generate_series(-8, -1) key"

// bell counts the notifications of what ran since it was last asked. A canary that it sends itself comes after them: the
// server delivers in the order of commits.
type bell struct {
	conn, sender *pgx.Conn
	channel      string
	canaries     int
}

func listen(t testing.TB, database, schema string) *bell {
	t.Helper()
	b := &bell{conn: direct(t, database), sender: direct(t, database), channel: migrations.Channel(schema)}
	run(t, b.conn, "LISTEN "+pgx.Identifier{b.channel}.Sanitize())
	// As a sleeping sidecar does: inserts ring.
	run(t, b.conn, sleep, pgx.Identifier{cmp.Or(schema, "public"), "jobs"}.Sanitize())
	return b
}

func (b *bell) heard(t testing.TB) []string {
	t.Helper()
	b.canaries++
	canary := fmt.Sprint("canary ", b.canaries)
	run(t, b.sender, "SELECT pg_notify($1, $2)", b.channel, canary)
	payloads := []string{}
	for {
		note, err := b.conn.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if note.Payload == canary {
			return payloads
		}
		payloads = append(payloads, note.Payload)
	}
}

// ringing is a step and the payloads that it sends, if any.
type ringing struct {
	sql   string
	rings string // payloads joined by a comma; "-" for none
}

func TestRings(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn := connect(t, database)
	b := listen(t, database, "public")
	const ring, none = "", "-"
	for _, step := range []ringing{
		{"INSERT INTO jobs (type, payload) VALUES ('send_email', '{\"to\":\"a@b.c\"}') RETURNING id", ring},
		{"INSERT INTO jobs (type) SELECT 'a' FROM generate_series(1, 1000)", ring},
		{"INSERT INTO jobs (type, scheduled_for) VALUES ('later', now() + interval '1 h')", ring},
		{"BEGIN; INSERT INTO jobs (type) VALUES ('a'); INSERT INTO jobs (type) VALUES ('a'); COMMIT", ring},
		{"INSERT INTO jobs (type, unique_key) VALUES ('u', 'k') ON CONFLICT DO NOTHING", ring},
		{"BEGIN; INSERT INTO jobs (type) VALUES ('a'); ROLLBACK", none},
		{"BEGIN; SAVEPOINT s; INSERT INTO jobs (type) VALUES ('a'); ROLLBACK TO s; COMMIT", none},
		{"BEGIN; SAVEPOINT s; INSERT INTO jobs (type) VALUES ('a'); RELEASE s; COMMIT", ring},
		{"SELECT enqueue_job('a')", ring},
		{"DELETE FROM jobs WHERE type <> 'later'", none},
		{"INSERT INTO jobs (type) VALUES ('x')", ring},
		{"SELECT claim_jobs()", none},
		{"UPDATE jobs SET status = 'completed', completed_at = now(), updated_at = now() WHERE type = 'x'", none},
		{"SELECT retry_job(id) FROM jobs WHERE type = 'x'", ring},
		{"UPDATE jobs SET priority = 5, payload = '{}', updated_at = now() WHERE type = 'x'", none},
		{"UPDATE jobs SET scheduled_for = now() + interval '1 min' WHERE type = 'x'", none},
		{"UPDATE jobs SET scheduled_for = now() WHERE type = 'x'", ring},
		{"UPDATE jobs SET type = 'y' WHERE type = 'x'", ring},
		{"SELECT claim_jobs()", none},
		{"SELECT heartbeat_job(id, lease) FROM jobs WHERE type = 'y'", none},
		{"SELECT fail_job(id, lease, 'no') FROM jobs WHERE type = 'y'", ring},
		{"UPDATE jobs SET status = 'processing' WHERE type = 'y'", none},
		{"UPDATE jobs SET status = 'pending', attempts = 9, scheduled_for = now() + interval '2 min' WHERE type = 'y'", ring},
		{"UPDATE jobs SET status = 'failed' WHERE type = 'y'", none},
		{"UPDATE jobs SET scheduled_for = now() - interval '1 h' WHERE type = 'y'", none},
		{"SELECT pause_type('y')", none},
		{"SELECT pause_type('y', 'again')", none},
		{"SELECT resume_type('y')", ring},
		{"SELECT resume_type('y')", none},
		{"SELECT pause_type('y')", none},
		{"DELETE FROM job_types", ring},
		{"SELECT ring_jobs()", ring},
		{"SELECT cancel_job(id) FROM jobs WHERE type = 'later'", none},
		{"INSERT INTO jobs (type) VALUES ('c')", ring},
		{"SELECT claim_jobs()", none},
		{"SELECT cancel_job(id) FROM jobs WHERE type = 'c'", "cancel"},
		{"SELECT complete_job(id, lease) FROM jobs WHERE type = 'c'", none},
		{"BEGIN; SET LOCAL pgbell.ring = 'off'; INSERT INTO jobs (type) VALUES ('p'); UPDATE jobs SET type = 'q' WHERE type = 'p'; PREPARE TRANSACTION 'rings'", none},
		{"COMMIT PREPARED 'rings'", none},
		{"SELECT ring_jobs()", ring},
		{"INSERT INTO jobs (type) VALUES ('after that it rings again')", ring},
	} {
		run(t, conn, step.sql)
		got := none
		if payloads := b.heard(t); len(payloads) > 0 {
			got = strings.Join(payloads, ",")
		}
		if got != step.rings {
			t.Errorf("%s: heard %q, want %q", step.sql, got, step.rings)
		}
	}
	if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"jobs"}, []string{"type"}, pgx.CopyFromSlice(100, func(int) ([]any, error) { return []any{"copied"}, nil })); err != nil {
		t.Fatal(err)
	}
	if heard := b.heard(t); len(heard) != 1 {
		t.Errorf("COPY: heard %q", heard)
	}
	refused(t, conn, "0A000", "cannot PREPARE a transaction that has executed", "BEGIN; INSERT INTO jobs (type) VALUES ('p'); PREPARE TRANSACTION 'rings'")
}

func TestInstallationsDoNotHearEachOther(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn := connect(t, database)
	up(t, conn, migrations.Config{Schema: "My-Schema"})
	public, other := listen(t, database, ""), listen(t, database, "My-Schema")
	run(t, conn, `INSERT INTO "My-Schema".jobs (type) VALUES ('a')`)
	run(t, conn, `SELECT "My-Schema".pause_type('a'), "My-Schema".resume_type('a')`)
	if a, b := len(public.heard(t)), len(other.heard(t)); a != 0 || b != 2 {
		t.Errorf("public heard %d, the other %d", a, b)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs"); n != 0 {
		t.Errorf("%d jobs in the other schema", n)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "INSERT INTO jobs (type) VALUES ('a')")
	if !one[bool](t, conn, `SELECT id IS NOT NULL AND payload = '{}' AND status = 'pending' AND priority = 0 AND attempts = 0 AND max_attempts = 3 AND crashes = 0
		AND created_at = scheduled_for AND updated_at = created_at AND created_at <= now() AND num_nulls(error, completed_at, started_at, lease, worker_id,
		held_until, unique_key, result, timeout, metadata, cancel_requested_at) = 11 FROM jobs`) {
		t.Error("not the contract's defaults")
	}
	// Order, names and types of the published columns.
	want := "id uuid, type text, payload jsonb, status job_status, priority integer, attempts integer, max_attempts integer, error text, created_at timestamp with time zone, " +
		"updated_at timestamp with time zone, scheduled_for timestamp with time zone, completed_at timestamp with time zone"
	if got := one[string](t, conn, "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'jobs'::regclass AND attnum BETWEEN 1 AND 12"); got != want {
		t.Errorf("columns: %s", got)
	}
	if got := one[string](t, conn, "SELECT enum_range(NULL::job_status)::text"); got != "{pending,processing,completed,failed,cancelled}" {
		t.Errorf("job_status: %s", got)
	}
}

func TestBadJobsAreRefused(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	const check, null, unique = "23514", "23502", "23505"
	for _, test := range []struct{ columns, values, state, text string }{
		{"type", "''", check, "jobs_type_has_1_to_200_characters"},
		{"type", "repeat('ü', 201)", check, "jobs_type_has_1_to_200_characters"},
		{"type", "NULL", null, `null value in column "type"`},
		{"type, max_attempts", "'a', 0", check, "jobs_max_attempts_is_at_least_1"},
		{"type, attempts", "'a', -1", check, "jobs_attempts_is_not_negative"},
		{"type, crashes", "'a', -1", check, "jobs_crashes_is_not_negative"},
		{"type, payload", "'a', NULL", null, `null value in column "payload"`},
		{"type, scheduled_for", "'a', 'infinity'", check, "jobs_scheduled_for_is_finite"},
		{"type, scheduled_for", "'a', '-infinity'", check, "jobs_scheduled_for_is_finite"},
		{"type, scheduled_for", "'a', NULL", null, `null value in column "scheduled_for"`},
		{"type, timeout", "'a', '0'", check, "jobs_timeout_is_positive"},
		{"type, unique_key", "'a', ''", check, "jobs_unique_key_has_1_to_1000_bytes"},
		{"type, unique_key", "'a', repeat('k', 1001)", check, "jobs_unique_key_has_1_to_1000_bytes"},
		{"type, status", "'a', 'done'", "22P02", "invalid input value for enum"},
		{"type, unique_key", "'a', 'k'), ('a', 'k'", unique, "jobs_unique"},
	} {
		refused(t, conn, test.state, test.text, fmt.Sprintf("INSERT INTO jobs (%s) VALUES (%s)", test.columns, test.values))
	}
	run(t, conn, "INSERT INTO jobs (type, unique_key, attempts, max_attempts) VALUES (repeat('ü', 200), repeat('k', 1000), 99, 1)")
	refused(t, conn, check, "job_settings_manual_lease_is_a_positive_interval", "UPDATE job_settings SET value = '-1 s' WHERE name = 'manual_lease'")
	refused(t, conn, "22007", "invalid input syntax for type interval", "UPDATE job_settings SET value = 'soon' WHERE name = 'manual_lease'")
}

func TestEnqueueJob(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	id := one[string](t, conn, "SELECT enqueue_job('a', '{\"n\": 1}', 7, '1 h', 5, 'k', '30 s', '{\"t\": 1}')::text")
	if !one[bool](t, conn, `SELECT payload = '{"n": 1}' AND priority = 7 AND scheduled_for = created_at + interval '1 h' AND max_attempts = 5 AND unique_key = 'k'
		AND timeout = '30 s' AND metadata = '{"t": 1}' FROM jobs WHERE id = $1`, id) {
		t.Error("an argument was lost")
	}
	if again := one[string](t, conn, "SELECT enqueue_job(type => 'a', unique_key => 'k')::text"); again != id {
		t.Errorf("the same key gave another job: %s, %s", id, again)
	}
	run(t, conn, "UPDATE jobs SET status = 'completed'")
	if next := one[string](t, conn, "SELECT enqueue_job('a', unique_key => 'k')::text"); next == id {
		t.Error("the key of a completed job is not free")
	}
	run(t, conn, "SELECT enqueue_job('nulls', '{}', NULL, NULL, NULL)")
	if !one[bool](t, conn, "SELECT priority = 0 AND max_attempts = 3 AND scheduled_for = created_at FROM jobs WHERE type = 'nulls'") {
		t.Error("NULL does not stand for the default")
	}
	refused(t, conn, "23502", `"type"`, "SELECT enqueue_job(NULL)")
	refused(t, conn, "23502", `"payload"`, "SELECT enqueue_job('a', NULL)")
	refused(t, conn, "23514", "jobs_type_has_1_to_200_characters", "SELECT enqueue_job(repeat('x', 201))")
	hostile := `'); DROP TABLE jobs; -- $function$ %s \x00 "`
	run(t, conn, "SELECT enqueue_job($1, unique_key => $1)", hostile)
	if n := one[int](t, conn, "SELECT count(*) FROM jobs WHERE type = $1 AND unique_key = $1", hostile); n != 1 {
		t.Error("hostile text was changed")
	}
}

// Of two that enqueue one key at once, the second waits for the first and gets its job, or, if that is taken back, its own.
func TestEnqueueJobRace(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	first, second, watch := direct(t, database), direct(t, database), direct(t, database)
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		run(t, first, "BEGIN")
		id := one[string](t, first, "SELECT enqueue_job('a', unique_key => $1)::text", end)
		got := make(chan string, 1)
		go func() {
			var id string
			if err := second.QueryRow(context.WithoutCancel(t.Context()), "SELECT enqueue_job('a', unique_key => $1)::text", end).Scan(&id); err != nil {
				id = err.Error()
			}
			got <- id
		}()
		eventually(t, "the second waits", func() bool {
			return one[bool](t, watch, "SELECT $1 = ANY (pg_blocking_pids($2))", int32(first.PgConn().PID()), int32(second.PgConn().PID()))
		})
		run(t, first, end)
		if other := <-got; (other == id) != (end == "COMMIT") {
			t.Errorf("after %s: %s and %s", end, id, other)
		}
	}
	if n := one[int](t, first, "SELECT count(*) FROM jobs"); n != 2 {
		t.Errorf("%d jobs, not 2", n)
	}
}

// Whoever calls has put tables, functions and operators of his own before ours.
func TestSearchPathTricks(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, `CREATE SCHEMA evil;
		CREATE TABLE evil.jobs (LIKE public.jobs); CREATE TABLE evil.job_types (LIKE public.job_types); CREATE TABLE evil.job_settings (name text, value text);
		CREATE TEMP TABLE jobs (LIKE public.jobs); CREATE TEMP TABLE job_types (LIKE public.job_types); CREATE TEMP TABLE job_errors (LIKE public.job_errors);
		CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$;
		CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
		CREATE FUNCTION evil.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
		CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
		CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
		CREATE FUNCTION evil.eq(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
		CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.eq);
		SET search_path = pg_temp, evil, pg_catalog, public`)
	for _, sql := range []string{
		"SELECT public.enqueue_job('a'), public.enqueue_job('b', unique_key => 'k'), public.enqueue_job('b', unique_key => 'k'), public.enqueue_job('c')",
		"INSERT INTO public.jobs (type) VALUES ('d')",
		"SELECT public.heartbeat_job(id, lease), public.complete_job(id, lease) FROM public.claim_jobs(1)",
		"SELECT public.fail_job(id, lease, 'x') FROM public.claim_jobs(1)",
		"SELECT public.retry_job(id), public.cancel_job(id) FROM public.jobs WHERE status OPERATOR(pg_catalog.=) 'completed'",
		"SELECT public.pause_type('a'), public.resume_type('a'), public.ring_jobs(), public.jobs_access()",
	} {
		if tag, err := conn.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 {
			t.Errorf("%s: %v, %v", sql, tag, err)
		}
	}
	run(t, conn, "RESET search_path")
	got := one[string](t, conn, "SELECT string_agg(status::text, ' ' ORDER BY status) FROM public.jobs")
	if got != "pending pending pending cancelled" {
		t.Errorf("jobs are %s", got)
	}
	if n := one[int](t, conn, "SELECT (SELECT count(*) FROM evil.jobs) + (SELECT count(*) FROM pg_temp.jobs) + (SELECT count(*) FROM pg_temp.job_errors)"); n != 0 {
		t.Errorf("%d rows went astray", n)
	}
}

// Ids are version 7 uuids of now, unlike each other, and later ones sort after earlier ones.
func TestIDsAreOrderedByTime(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Migrated(t))
	rows, err := conn.Query(t.Context(), `WITH made AS (INSERT INTO jobs (type) SELECT 'x' FROM generate_series(1, 1000) RETURNING id)
		SELECT id::text FROM made`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, id := range ids {
		milliseconds, err := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.UnixMilli(milliseconds)); age < -time.Second || age > time.Minute {
			t.Fatalf("%s is %s old", id, age)
		}
		if id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%s is not of version 7", id)
		}
		seen[id] = true
	}
	if len(seen) != 1000 || ids[999][:13] < ids[0][:13] {
		t.Errorf("%d different ids, from %s to %s", len(seen), ids[0], ids[999])
	}
}
