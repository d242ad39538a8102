package migrations_test

import (
	"fmt"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// shadows are what a role puts in the way of names that are not qualified, in a schema that its search_path has first: functions,
// operators, casts, types and tables with the names that pgbell's functions use. Each one would note that it was called.
const shadows = `
CREATE FUNCTION %[1]s.note(what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO %[1]s.taken VALUES (what || ' as ' || current_user); RETURN true; END $$;
CREATE FUNCTION %[1]s.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT %[1]s.note('now'); SELECT pg_catalog.now() $$;
CREATE FUNCTION %[1]s.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT %[1]s.note('pg_notify') $$;
CREATE FUNCTION %[1]s.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT %[1]s.note('current_setting')::text $$;
CREATE FUNCTION %[1]s.pg_backend_pid() RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('pg_backend_pid') THEN 1 END $$;
CREATE FUNCTION %[1]s.gen_random_uuid() RETURNS uuid LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('gen_random_uuid') THEN pg_catalog.gen_random_uuid() END $$;
CREATE FUNCTION %[1]s.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('clock_timestamp') THEN pg_catalog.now() END $$;
CREATE FUNCTION %[1]s.isfinite(timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT %[1]s.note('isfinite') $$;
CREATE FUNCTION %[1]s.char_length(text) RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('char_length') THEN 1 END $$;
CREATE FUNCTION %[1]s.octet_length(text) RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('octet_length') THEN 1 END $$;
CREATE FUNCTION %[1]s.pg_try_advisory_lock(int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT %[1]s.note('pg_try_advisory_lock') $$;
CREATE FUNCTION %[1]s.pg_try_advisory_xact_lock_shared(int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT %[1]s.note('pg_try_advisory_xact_lock_shared') $$;
CREATE FUNCTION %[1]s.equal(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT %[1]s.note('=') $$;
CREATE OPERATOR %[1]s.= (LEFTARG = text, RIGHTARG = text, FUNCTION = %[1]s.equal);
CREATE FUNCTION %[1]s.either(int, int) RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('|') THEN 0 END $$;
CREATE OPERATOR %[1]s.| (LEFTARG = int, RIGHTARG = int, FUNCTION = %[1]s.either);
CREATE FUNCTION %[1]s.plus(timestamptz, interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT CASE WHEN %[1]s.note('+') THEN $1 END $$;
CREATE OPERATOR %[1]s.+ (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = %[1]s.plus);
CREATE DOMAIN %[1]s.int4 AS text CHECK (%[1]s.note('int4'));
CREATE DOMAIN %[1]s.job_status AS text CHECK (%[1]s.note('job_status'));
CREATE TABLE %[1]s.jobs (id uuid, type text, unique_key text, status text);
CREATE TABLE %[1]s.job_types (type text, paused_at timestamptz);
CREATE TABLE %[1]s.job_settings (name text, value text)`

// A role that may make objects of its own, and puts them first, calls what it may: nothing of them is used. In a temporary schema
// only types and tables are found at all, and they come first by default.
func TestSearchPathAttack(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	admin := connect(t, database)
	for _, of := range []string{"pgbell_producer", "pgbell_worker"} {
		role := loginRole(t, admin)
		run(t, admin, fmt.Sprintf("GRANT %s TO %s; CREATE SCHEMA %[2]s AUTHORIZATION %[2]s; CREATE TABLE %[2]s.taken (what text); GRANT ALL ON %[2]s.taken TO PUBLIC", of, role))
		run(t, admin, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO PUBLIC", role))
		conn := as(t, database, role)
		run(t, conn, fmt.Sprintf(shadows, role))
		run(t, conn, `CREATE TEMP TABLE jobs (id uuid, type text, unique_key text, status text); CREATE TEMP TABLE job_types (type text, paused_at timestamptz);
			CREATE TEMP TABLE job_settings (name text, value text); CREATE DOMAIN pg_temp.int4 AS text; CREATE DOMAIN pg_temp.uuid AS text;
			CREATE DOMAIN pg_temp.jsonb AS text; CREATE DOMAIN pg_temp.interval AS text`)
		for _, path := range []string{role + ", public, pg_catalog", "pg_temp, " + role + ", public, pg_catalog", role} {
			run(t, conn, "SET search_path = "+path)
			run(t, conn, "INSERT INTO public.jobs (type) VALUES ('a'::pg_catalog.text)")
			run(t, conn, "SELECT public.enqueue_job('a', unique_key => 'k'), public.ring_jobs()")
			if of == "pgbell_worker" {
				for _, call := range []string{
					"SELECT public.pause_type('b', 'x')", "SELECT public.resume_type('b')", "DELETE FROM public.job_types",
					"CREATE TEMP TABLE claimed AS SELECT c.id, c.lease FROM public.claim_jobs(3) c", "SELECT public.heartbeat_job(id, lease) FROM pg_temp.claimed",
					"SELECT public.fail_job(id, lease, 'x') FROM pg_temp.claimed LIMIT 1", "SELECT public.cancel_job(id), public.retry_job(id) FROM public.jobs WHERE lease IS NULL",
					"DELETE FROM public.jobs", "DROP TABLE pg_temp.claimed", "SELECT public.jobs_manual_lease(), public.jobs_roles()",
				} {
					run(t, conn, call)
				}
			}
			run(t, conn, "RESET search_path")
		}
		if n := one[int](t, admin, fmt.Sprintf("SELECT count(*) FROM %s.taken", role)); n != 0 {
			t.Errorf("%s: %s ran", of, one[string](t, admin, fmt.Sprintf("SELECT string_agg(DISTINCT what, ', ') FROM %s.taken", role)))
		}
		// They do stand in the way.
		run(t, conn, "SET search_path = "+role+", pg_catalog; SELECT now()")
		if n := one[int](t, admin, fmt.Sprintf("SELECT count(*) FROM %s.taken", role)); n != 1 {
			t.Errorf("a shadow was called %d times", n)
		}
	}
	if n := one[int](t, admin, "SELECT count(*) FROM jobs WHERE unique_key IS NOT NULL"); n != 1 && n != 0 {
		t.Errorf("%d jobs have the one key", n)
	}
}

// A producer may give a job nothing but what an application says of it, whatever column it names, and reads nothing back.
func TestProducerIsConfined(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	admin := connect(t, database)
	conn := member(t, database, "pgbell_producer")
	// The rights alone, and the policy alone: each of the two keeps it out.
	for _, column := range []string{"error = 'x'", "completed_at = now()", "started_at = now()", "lease = gen_random_uuid()", "worker_id = 1", "held_until = now()",
		"crashes = 1", "result = '1'", "cancel_requested_at = now()", "unavailable_since = now()", "created_at = now()", "updated_at = now()"} {
		var name, value string
		if _, err := fmt.Sscanf(column, "%s = %s", &name, &value); err != nil {
			t.Fatal(err)
		}
		refused(t, conn, "42501", "permission denied", fmt.Sprintf("INSERT INTO jobs (type, %s) VALUES ('a', %s)", name, value))
	}
	run(t, admin, "GRANT INSERT ON jobs TO pgbell_producer")
	for _, values := range []string{"error) VALUES ('a', 'x'", "completed_at) VALUES ('a', now()", "started_at) VALUES ('a', now()", "lease) VALUES ('a', gen_random_uuid()",
		"worker_id) VALUES ('a', 1", "held_until) VALUES ('a', now()", "crashes) VALUES ('a', 1", "result) VALUES ('a', '1'", "cancel_requested_at) VALUES ('a', now()",
		"status) VALUES ('a', 'failed'", "attempts) VALUES ('a', 1"} {
		refused(t, conn, "42501", "row-level security", "INSERT INTO jobs (type, "+values+")")
	}
	for _, read := range []string{"SELECT payload FROM jobs", "COPY jobs TO STDOUT", "SELECT * FROM claim_jobs(1)", "TABLE job_errors", "SELECT most_common_vals FROM pg_stats WHERE tablename = 'jobs' AND (1 / (SELECT count(*) FROM jobs)) > 0",
		"INSERT INTO jobs (type, unique_key) VALUES ('a', 'k') ON CONFLICT (type, unique_key) WHERE unique_key IS NOT NULL AND status IN ('pending', 'processing') DO UPDATE SET priority = 1",
		"MERGE INTO jobs USING (VALUES (1)) v ON true WHEN NOT MATCHED THEN INSERT (type) VALUES ('a') WHEN MATCHED THEN DO NOTHING"} {
		if _, err := conn.Exec(t.Context(), read); err == nil {
			t.Errorf("%s: allowed", read)
		}
	}
}
