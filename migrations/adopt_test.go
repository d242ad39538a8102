package migrations_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// The table as many applications have copied it.
const recipe = `
CREATE TYPE job_status AS ENUM ('pending', 'processing', 'completed', 'failed');
CREATE TABLE jobs (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(), type TEXT NOT NULL, payload JSONB NOT NULL,
  status job_status NOT NULL DEFAULT 'pending', priority INT NOT NULL DEFAULT 0, attempts INT NOT NULL DEFAULT 0,
  max_attempts INT NOT NULL DEFAULT 3, error TEXT, created_at TIMESTAMPTZ DEFAULT now(), updated_at TIMESTAMPTZ DEFAULT now(),
  scheduled_for TIMESTAMPTZ DEFAULT now(), completed_at TIMESTAMPTZ
);
CREATE INDEX idx_jobs_worker ON jobs (status, priority DESC, scheduled_for) WHERE status = 'pending';
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
CREATE OR REPLACE FUNCTION claim_jobs(batch_size INT DEFAULT 5) RETURNS SETOF jobs LANGUAGE sql AS $$
  UPDATE jobs SET status = 'processing', attempts = attempts + 1, updated_at = now()
  WHERE id IN (SELECT id FROM jobs WHERE status = 'pending' AND scheduled_for <= now()
    ORDER BY priority DESC, created_at ASC LIMIT batch_size FOR UPDATE SKIP LOCKED)
  RETURNING *;
$$;
`

func TestAdoptAndGiveBack(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	run(t, conn, recipe)
	run(t, conn, "ALTER TABLE jobs SET (fillfactor = 90), ADD COLUMN tenant text NOT NULL DEFAULT 'none'")
	run(t, conn, `INSERT INTO jobs (type, payload, status, attempts) VALUES ('old', '{"n":1}', 'pending', 0), ('old', '{}', 'failed', 7), ('old', '{}', 'processing', 1)`)
	before := inventory(t, conn, "public")

	up(t, conn, migrations.Config{})
	report := status(t, conn, "")
	if !report.Current || !report.Adopted {
		t.Errorf("status: %+v", report)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs WHERE type = 'old' AND tenant = 'none' AND crashes = 0"); n != 3 {
		t.Errorf("%d of 3 rows left", n)
	}
	run(t, conn, "INSERT INTO jobs (type) VALUES ('new')")

	// The recipe's worker: completed; back to pending with attempts of its own counting, beyond max_attempts; failed.
	if n := one[int](t, conn, "SELECT count(*) FROM claim_jobs(batch_size => 5)"); n != 2 {
		t.Errorf("claimed %d jobs, not 2", n)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs WHERE status = 'processing' AND lease IS NOT NULL AND worker_id IS NULL AND held_until > now() + interval '14 min'"); n != 2 {
		t.Errorf("%d jobs held, not 2", n)
	}
	run(t, conn, "UPDATE jobs SET status = 'completed', completed_at = now(), updated_at = now() WHERE type = 'new'")
	run(t, conn, "UPDATE jobs SET status = 'pending', attempts = 9, error = 'x', scheduled_for = now() + interval '30 s', updated_at = now() WHERE payload = '{\"n\":1}'")
	run(t, conn, "UPDATE jobs SET status = 'failed', attempts = 10, error = 'y', updated_at = now() WHERE payload = '{\"n\":1}'")
	run(t, conn, "UPDATE jobs SET status = 'cancelled' WHERE attempts = 7")

	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Fatalf("down: %v", err)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs"); n != 4 {
		t.Errorf("%d of 4 rows left after going down", n)
	}
	after := inventory(t, conn, "public")
	// A value can't be taken out of an enum.
	if after != strings.Replace(before, "{pending,processing,completed,failed}", "{pending,processing,completed,failed,cancelled}", 1) {
		t.Errorf("not given back as it was; before:\n%s\nafter:\n%s", before, after)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM claim_jobs()"); n != 0 {
		t.Errorf("the application's claim_jobs claimed %d", n)
	}
	up(t, conn, migrations.Config{})
	if !status(t, conn, "").Adopted {
		t.Error("not adopted the second time")
	}
}

// The application's own roles keep what they could do; those that could only because nobody had said no, don't.
func TestAdoptKeepsTheApplicationsRights(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	run(t, conn, recipe)
	app, reader := loginRole(t, conn), loginRole(t, conn)
	run(t, conn, `GRANT SELECT, INSERT, UPDATE ON jobs TO "`+app+`"; ALTER ROLE "`+app+`" BYPASSRLS`)
	run(t, conn, `GRANT SELECT (id, type) ON jobs TO "`+reader+`"; CREATE POLICY own ON jobs FOR SELECT TO "`+reader+`" USING (type = 'his')`)
	before := inventory(t, conn, "public")
	up(t, conn, migrations.Config{})

	worker := as(t, url, app)
	run(t, worker, "INSERT INTO jobs (type, payload) VALUES ('his', '{}'), ('hers', '{}')")
	if n := one[int](t, worker, "SELECT count(*) FROM claim_jobs()"); n != 2 {
		t.Errorf("its worker claimed %d jobs", n)
	}
	if n := one[int](t, as(t, url, reader), "SELECT count(id) FROM jobs"); n != 1 {
		t.Errorf("its reader sees %d jobs, not 1", n)
	}
	run(t, conn, "DELETE FROM jobs")
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Fatal(err)
	}
	if after := strings.Replace(inventory(t, conn, "public"), ",cancelled}", "}", 1); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestClashesAreListedAndNothingIsChanged(t *testing.T) {
	t.Parallel()
	const inherits = "table jobs is a partition, or inherits from or to another table: inserts into that one would not ring, and claims mix up their rows"
	for name, test := range map[string]struct {
		setup string
		want  []string
	}{
		"rows": {recipe + `
			INSERT INTO jobs (type, payload, attempts, max_attempts) VALUES ('', '{}', -1, 0), (repeat('x', 201), '{}', 0, 3);
			INSERT INTO jobs (type, payload, scheduled_for, created_at) VALUES ('a', '{}', 'infinity', NULL), ('b', '{}', NULL, NULL), ('c', '{}', '-infinity', now());`,
			[]string{
				"2 row(s) break jobs_type_has_1_to_200_characters",
				"1 row(s) break jobs_attempts_is_not_negative",
				"1 row(s) break jobs_max_attempts_is_at_least_1",
				"column created_at is NULL in 2 row(s): UPDATE jobs SET created_at = ... WHERE created_at IS NULL",
				"column scheduled_for is NULL in 1 row(s): UPDATE jobs SET scheduled_for = ... WHERE scheduled_for IS NULL",
				"2 row(s) break jobs_scheduled_for_is_finite",
			}},
		"columns": {`CREATE TABLE jobs (id bigint, type varchar(20) NOT NULL, status text, priority smallint, tenant text NOT NULL,
			created_at timestamp, lease text, attempts int GENERATED ALWAYS AS (1) STORED)`,
			[]string{
				"column id is bigint, not uuid", "column type is character varying(20), not text", "column payload is missing",
				"column status is text, not job_status", "column priority is smallint, not integer", "column attempts is generated",
				"column created_at is timestamp without time zone, not timestamp with time zone", "column lease is text, not uuid",
				"column tenant is NOT NULL without a default: pgbell's inserts, which don't know it, would fail", "column id is not the primary key",
			}},
		"names": {recipe + `
			CREATE TABLE job_errors (n int); CREATE VIEW job_types AS SELECT 1; CREATE INDEX jobs_claim ON jobs (type);
			CREATE FUNCTION enqueue_job(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
			CREATE FUNCTION claim_jobs(text, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
			ALTER TABLE jobs ADD CONSTRAINT jobs_timeout_is_positive CHECK (priority > -1000);
			CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
			CREATE TRIGGER jobs_ring_insert AFTER INSERT ON jobs EXECUTE FUNCTION t();`,
			[]string{
				"table job_errors exists, and is not pgbell's", "view job_types exists, and is not pgbell's", "index jobs_claim exists, and is not pgbell's",
				"function public.claim_jobs(text,integer) is not claim_jobs(batch_size integer DEFAULT 5) RETURNS SETOF jobs",
				"function public.enqueue_job(text) exists, and is not pgbell's", "constraint jobs_timeout_is_positive exists on table jobs, and is not pgbell's",
				"trigger jobs_ring_insert exists on table jobs, and is not pgbell's",
			}},
		"claim_jobs": {recipe + `DROP FUNCTION claim_jobs; CREATE FUNCTION claim_jobs(n int) RETURNS SETOF jobs LANGUAGE sql AS 'SELECT * FROM jobs LIMIT n'`,
			[]string{"function public.claim_jobs(integer) is not claim_jobs(batch_size integer DEFAULT 5) RETURNS SETOF jobs"}},
		"definer":    {recipe + `ALTER FUNCTION claim_jobs SECURITY DEFINER`, []string{"function claim_jobs is SECURITY DEFINER, and pgbell's is not: grant UPDATE on jobs to who calls it, and make it SECURITY INVOKER"}},
		"enum":       {`CREATE TYPE job_status AS ENUM ('pending', 'done')`, []string{"type job_status lacks the value 'processing'", "type job_status lacks the value 'completed'", "type job_status lacks the value 'failed'"}},
		"not enum":   {`CREATE DOMAIN job_status AS text`, []string{"type job_status exists and is not an enum"}},
		"view":       {`CREATE VIEW jobs AS SELECT 1 AS id`, []string{"jobs exists and is not an ordinary table"}},
		"partitions": {`CREATE TABLE jobs (id uuid) PARTITION BY HASH (id)`, []string{"jobs exists and is not an ordinary table"}},
		"partition": {`CREATE TABLE all_jobs (id uuid NOT NULL) PARTITION BY HASH (id); ` + strings.Replace(recipe, "ALTER TABLE jobs ENABLE", `
			ALTER TABLE all_jobs ADD type text NOT NULL, ADD payload jsonb NOT NULL, ADD status job_status NOT NULL, ADD priority int NOT NULL,
			  ADD attempts int NOT NULL, ADD max_attempts int NOT NULL, ADD error text, ADD created_at timestamptz,
			  ADD updated_at timestamptz, ADD scheduled_for timestamptz, ADD completed_at timestamptz;
			ALTER TABLE all_jobs ATTACH PARTITION jobs FOR VALUES WITH (MODULUS 1, REMAINDER 0);
			ALTER TABLE jobs ENABLE`, 1), []string{inherits}},
		"child":    {recipe + `CREATE TABLE old_jobs () INHERITS (jobs)`, []string{inherits}},
		"unlogged": {recipe + `ALTER TABLE jobs SET UNLOGGED, FORCE ROW LEVEL SECURITY`, []string{"table jobs is unlogged: a crash would empty it (ALTER TABLE jobs SET LOGGED)", "table jobs has FORCE ROW LEVEL SECURITY, which hides its rows from enqueue_job (ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY)"}},
		"rights": {recipe + `ALTER TABLE jobs DISABLE ROW LEVEL SECURITY; GRANT INSERT ON jobs TO PUBLIC`,
			[]string{"row security of table jobs is off and PUBLIC has rights on it, which pgbell would cut off: ALTER TABLE jobs ENABLE ROW LEVEL SECURITY and CREATE POLICY for it, or REVOKE them"}},
		"keys": {recipe + `ALTER TABLE jobs ADD COLUMN unique_key text; INSERT INTO jobs (type, payload, unique_key) VALUES ('a', '{}', 'k'), ('a', '{}', 'k'), ('b', '{}', 'k')`,
			[]string{"1 unique_key(s) have more than one pending or processing job"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, pgtest.Empty(t))
			run(t, conn, test.setup)
			before := inventory(t, conn, "public")
			err := migrations.Up(t.Context(), conn, migrations.Config{})
			var clash *migrations.ClashError
			if !errors.As(err, &clash) {
				t.Fatalf("got %v", err)
			}
			got, want := slices.Sorted(slices.Values(clash.Clashes)), slices.Sorted(slices.Values(test.want))
			if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
			if after := inventory(t, conn, "public"); after != before {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

func TestOwnedByAnother(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	run(t, conn, recipe)
	role := loginRole(t, conn)
	run(t, conn, `ALTER TABLE jobs OWNER TO "`+role+`"; ALTER TYPE job_status OWNER TO "`+role+`"; ALTER FUNCTION claim_jobs OWNER TO "`+role+`"`)
	err := migrations.Up(t.Context(), conn, migrations.Config{})
	var clash *migrations.ClashError
	if !errors.As(err, &clash) || len(clash.Clashes) != 3 || !strings.Contains(err.Error(), "migrate as that role") {
		t.Errorf("got %v", err)
	}
}

func TestEnumAloneIsAdopted(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	run(t, conn, "CREATE TYPE job_status AS ENUM ('pending', 'processing', 'archived', 'completed', 'failed'); CREATE TABLE other (s job_status)")
	up(t, conn, migrations.Config{})
	if status(t, conn, "").Adopted {
		t.Error("the table counts as adopted")
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "INSERT INTO other VALUES ('archived')")
}

// A deploy that is taken back: the sidecars of before run on, and the jobs stay.
func TestDownOneVersion(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "INSERT INTO jobs (type) SELECT 'a' FROM generate_series(1, 7)")
	const worker = "INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after, heartbeat_at) " +
		"VALUES ('w', 'v', %d, 1, '{*}', '15 s', '1 s', now() - interval '50 s') RETURNING id"
	one[int](t, conn, fmt.Sprintf(worker, migrations.Version-1))
	// An idle one, whose last heartbeat is older than its lease time: its lock shows that it lives.
	present := one[int](t, conn, fmt.Sprintf(worker, migrations.Version))
	run(t, conn, fmt.Sprintf("SELECT pg_advisory_lock('jobs'::regclass::int, %d)", present))
	var refused *migrations.RefusedError
	err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{To: -1})
	if !errors.As(err, &refused) || refused.Sidecars != 1 || refused.Unfinished != 0 {
		t.Fatalf("got %v", err)
	}
	run(t, conn, "SELECT pg_advisory_unlock_all()")
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{To: -1}); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs"); n != 7 || status(t, conn, "").Installed != migrations.Version-1 {
		t.Errorf("%d jobs are left, version %d", n, status(t, conn, "").Installed)
	}
	up(t, conn, migrations.Config{})
}

func TestDownRefuses(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "INSERT INTO jobs (type) SELECT 'a' FROM generate_series(1, 7)")
	run(t, conn, "SELECT claim_jobs(3)")
	run(t, conn, "INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after) VALUES ('w', 'v', 2, 1, '{*}', '15 s', '1 s')")
	var refused *migrations.RefusedError
	err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{})
	if !errors.As(err, &refused) || refused.Sidecars != 1 || refused.Unfinished != 7 {
		t.Fatalf("got %v", err)
	}
	run(t, conn, "UPDATE job_workers SET heartbeat_at = now() - interval '16 s'")
	run(t, conn, "UPDATE jobs SET status = 'completed'")
	run(t, conn, "CREATE VIEW mine AS SELECT id FROM jobs")
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err == nil || !strings.Contains(err.Error(), "depend on it") {
		t.Fatalf("got %v", err)
	}
	run(t, conn, "DROP VIEW mine; UPDATE jobs SET status = 'pending'")
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if rest := inventory(t, conn, "public"); rest != "" {
		t.Errorf("left behind:\n%s", rest)
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Errorf("down where nothing is: %v", err)
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{To: 2}); err == nil {
		t.Error("down went up")
	}
}
