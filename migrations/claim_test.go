package migrations_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func claimed(t testing.TB, conn *pgx.Conn, call string) string {
	t.Helper()
	return one[string](t, conn, "SELECT coalesce(string_agg(payload ->> 'n', ' ' ORDER BY ordinality), '') FROM "+call+" WITH ORDINALITY")
}

func TestClaimOrder(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, `INSERT INTO jobs (type, priority, scheduled_for, payload, status) VALUES
		('b', 0, now() - interval '3 min', '{"n":4}', 'pending'), ('a', 0, now() - interval '2 min', '{"n":5}', 'pending'),
		('c', 9, now() - interval '1 s', '{"n":1}', 'pending'), ('a', 9, now() - interval '0.5 s', '{"n":2}', 'pending'),
		('b', 1, now(), '{"n":3}', 'pending'), ('a', 99, now() + interval '1 h', '{"n":"future"}', 'pending'),
		('a', 99, now(), '{"n":"held"}', 'processing'), ('a', 99, now(), '{"n":"done"}', 'completed'), ('a', 99, now(), '{"n":"cancelled"}', 'cancelled'),
		('paused', 99, now(), '{"n":"paused"}', 'pending')`)
	run(t, conn, "SELECT pause_type('paused')")
	for _, step := range []struct{ call, want string }{
		{"claim_jobs(0)", ""}, {"claim_jobs(-3)", ""}, {"claim_jobs(1)", "1"}, {"claim_jobs(batch_size => 3)", "2 3 4"}, {"claim_jobs(NULL)", "5"}, {"claim_jobs()", ""}, {"claim_jobs(2147483647)", ""},
	} {
		if got := claimed(t, conn, step.call); got != step.want {
			t.Errorf("%s: claimed %q, want %q", step.call, got, step.want)
		}
	}
	if n := one[int](t, conn, `SELECT count(DISTINCT lease) FROM jobs WHERE status = 'processing' AND attempts = 1 AND started_at IS NOT NULL AND worker_id IS NULL
		AND held_until BETWEEN now() + interval '14 min' AND now() + interval '15 min'`); n != 5 {
		t.Errorf("%d jobs are held as they should be, not 5", n)
	}
	run(t, conn, "SELECT resume_type('paused'); DELETE FROM job_settings")
	if got := claimed(t, conn, "claim_jobs()"); got != "paused" {
		t.Errorf("after resuming, without a manual_lease: %q", got)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM jobs WHERE type = 'paused' AND held_until > now() + interval '14 min'"); n != 1 {
		t.Error("held_until without a manual_lease is not 15 minutes away")
	}
}

// Rows that others hold are passed over, also where they fill the whole batch, and lower ones are claimed.
func TestClaimPassesOverLockedRows(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	conn, holder := connect(t, database), connect(t, database)
	run(t, conn, `INSERT INTO jobs (type, priority, payload) SELECT 'high', 9, '{"n":"high"}' FROM generate_series(1, 5);
		INSERT INTO jobs (type, priority, payload, scheduled_for) VALUES ('b', 1, '{"n":1}', now()), ('a', 0, '{"n":2}', now() - interval '1 s'), ('c', 0, '{"n":3}', now())`)
	run(t, holder, "BEGIN")
	run(t, holder, "SELECT FROM jobs WHERE type = 'high' FOR UPDATE")
	if got := claimed(t, conn, "claim_jobs(2)"); got != "1 2" {
		t.Errorf("claimed %q", got)
	}
	if got := claimed(t, conn, "claim_jobs(2)"); got != "3" {
		t.Errorf("claimed %q", got)
	}
	if got := claimed(t, conn, "claim_jobs(2)"); got != "" {
		t.Errorf("claimed %q", got)
	}
	run(t, holder, "ROLLBACK")
	if got := claimed(t, conn, "claim_jobs(2)"); got != "high high" {
		t.Errorf("claimed %q", got)
	}
	// A foreign key that refers to a job doesn't hide it.
	run(t, conn, "CREATE TABLE orders (job uuid REFERENCES jobs)")
	run(t, holder, "BEGIN")
	run(t, holder, "INSERT INTO orders SELECT id FROM jobs WHERE status = 'pending' LIMIT 1")
	if got := claimed(t, conn, "claim_jobs(5)"); got != "high high high" {
		t.Errorf("claimed %q", got)
	}
}

func TestNoJobIsClaimedTwice(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	admin := connect(t, database)
	const jobs, claimers = 3000, 8
	run(t, admin, "INSERT INTO jobs (type, priority) SELECT 't' || n % 3, n % 4 FROM generate_series(1, $1::int) n", jobs)
	var mutex sync.Mutex
	seen := map[string]int{}
	leases := map[string]bool{}
	var group sync.WaitGroup
	errs := make([]error, claimers)
	for n := range claimers {
		conn := connect(t, database)
		group.Go(func() {
			for {
				rows, err := conn.Query(t.Context(), "SELECT id::text, lease::text FROM claim_jobs(7)")
				if err != nil {
					errs[n] = err
					return
				}
				pairs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ ID, Lease string }])
				if err != nil || len(pairs) == 0 {
					errs[n] = err
					return
				}
				mutex.Lock()
				for _, pair := range pairs {
					seen[pair.ID]++
					leases[pair.Lease] = true
				}
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("job %s was claimed %d times", id, times)
		}
	}
	if len(seen) != jobs || len(leases) != jobs {
		t.Errorf("%d jobs and %d leases, not %d", len(seen), len(leases), jobs)
	}
	if n := one[int](t, admin, "SELECT count(*) FROM jobs WHERE attempts <> 1 OR status <> 'processing'"); n != 0 {
		t.Errorf("%d jobs are not held once", n)
	}
}

type planNode struct {
	NodeType  string     `json:"Node Type"`
	IndexName string     `json:"Index Name"`
	Relation  string     `json:"Relation Name"`
	Rows      float64    `json:"Actual Rows"`
	Loops     float64    `json:"Actual Loops"`
	Removed   float64    `json:"Rows Removed by Filter"`
	Hit       float64    `json:"Shared Hit Blocks"`
	Read      float64    `json:"Shared Read Blocks"`
	Plans     []planNode `json:"Plans"`
}

func (n planNode) walk(visit func(planNode)) {
	visit(n)
	for _, child := range n.Plans {
		child.walk(visit)
	}
}

// The statements of claim_jobs over a backlog of 100,000, as plpgsql plans them: for the arguments at hand and, later in a
// session, for any. Only the claim index is used, and the backlog is neither read nor sorted, with statistics and without.
func TestClaimPlan(t *testing.T) {
	t.Parallel()
	conn := direct(t, pgtest.Migrated(t))
	run(t, conn, `ALTER TABLE jobs SET (autovacuum_enabled = off);
		INSERT INTO jobs (type, priority, scheduled_for) SELECT 'due' || n % 7, n % 5, now() - n * interval '1 s' FROM generate_series(1, 50000) n;
		INSERT INTO jobs (type, priority, scheduled_for) SELECT 'due' || n % 7, 100 + n % 3, now() + n * interval '1 min' FROM generate_series(1, 40000) n;
		INSERT INTO jobs (type) SELECT 'paused' FROM generate_series(1, 10000); SELECT pause_type('paused')`)
	body := one[string](t, conn, "SELECT prosrc FROM pg_proc WHERE oid = 'claim_jobs(int)'::regprocedure")
	statements := regexp.MustCompile(`(?s)WITH RECURSIVE kinds.*?(?:INTO held, levelled;|\n    LOOP)`).FindAllString(body, -1)
	inner := regexp.MustCompile(`(?s)SELECT j\.ctid FROM \S+jobs j\s+WHERE [^;]*levels\.type.*?SKIP LOCKED`).FindString(body)
	if len(statements) != 2 || inner == "" {
		t.Fatalf("found %d statements and %q in\n%s", len(statements), inner, body)
	}
	statements = append(statements, inner)
	for n, statement := range statements {
		statement = strings.NewReplacer("INTO held, levelled;", "", "LOOP", "", "LIMIT missing", "LIMIT $1", "levels.type", "$2", "levels.priority", "$3", "(held)", "($4)").Replace(statement)
		run(t, conn, fmt.Sprintf("PREPARE claim%d (int, text, int, tid[]) AS %s", n, statement))
	}
	for _, statistics := range []string{"SELECT 1", "ANALYZE jobs"} {
		run(t, conn, statistics)
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			run(t, conn, "SET plan_cache_mode = "+mode)
			for n := range statements {
				t.Run(fmt.Sprintf("%s %s %d", statistics, mode, n), func(t *testing.T) { boundedPlan(t, conn, n) })
			}
		}
	}
}

func boundedPlan(t *testing.T, conn *pgx.Conn, n int) {
	var text []byte
	if err := conn.QueryRow(t.Context(), fmt.Sprintf("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claim%d (20, 'due1', 1, '{}')", n),
		pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	scans := 0
	plans[0].Plan.walk(func(node planNode) {
		if node.Relation == "jobs" {
			if scans++; node.IndexName != "jobs_claim" {
				t.Errorf("%s by %q on jobs", node.NodeType, node.IndexName)
			}
		}
		if rows := (node.Rows + node.Removed) * node.Loops; rows > 1500 {
			t.Errorf("%s handles %.0f rows", node.NodeType, rows)
		}
	})
	if blocks := plans[0].Plan.Hit + plans[0].Plan.Read; scans == 0 || blocks > 3000 {
		t.Errorf("%d scans of jobs, %.0f blocks", scans, blocks)
	}
}

func TestLeaseFunctions(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	const stale = "55000"
	run(t, conn, "INSERT INTO jobs (type, max_attempts, payload) VALUES ('a', 2, '{\"n\":1}')")
	id := one[string](t, conn, "SELECT id::text FROM jobs")
	call := func(text string) string { return fmt.Sprintf(text, "'"+id+"'") }
	claim := func() string { return one[string](t, conn, "SELECT lease::text FROM claim_jobs()") }

	first := claim()
	if one[bool](t, conn, call("SELECT heartbeat_job(%s, $1)"), first) {
		t.Error("a cancel was asked for")
	}
	run(t, conn, call("SELECT fail_job(%s, $1, repeat('x', 5000), '0 s')"), first)
	if !one[bool](t, conn, "SELECT status = 'pending' AND attempts = 1 AND length(error) = 4000 AND num_nulls(lease, worker_id, held_until, completed_at) = 4 AND scheduled_for <= now() FROM jobs") {
		t.Error("not pending again as it should be")
	}
	second := claim()
	if second == first {
		t.Fatal("a lease was used twice")
	}
	for _, lease := range []any{first, "00000000-0000-0000-0000-000000000000", nil} {
		for _, sql := range []string{"SELECT complete_job(%s, $1)", "SELECT fail_job(%s, $1, 'late')", "SELECT heartbeat_job(%s, $1)"} {
			refused(t, conn, stale, "is not held by this lease", call(sql), lease)
		}
	}
	refused(t, conn, stale, "is not held", "SELECT complete_job(NULL, NULL)")
	refused(t, conn, stale, "is not held", "SELECT complete_job(gen_random_uuid(), $1)", second)
	run(t, conn, call("SELECT fail_job(%s, $1, NULL)"), second)
	if !one[bool](t, conn, "SELECT status = 'failed' AND completed_at IS NOT NULL AND error = 'no error given' FROM jobs") {
		t.Error("not failed at its last attempt")
	}
	for _, sql := range []string{"SELECT complete_job(%s, $1)", "SELECT fail_job(%s, $1, 'late')", "SELECT heartbeat_job(%s, $1)"} {
		refused(t, conn, stale, "is not held", call(sql), second)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM job_errors WHERE (attempt, lease::text) IN ((1, $1), (2, $2))", first, second); n != 2 {
		t.Errorf("%d rows in job_errors, not 2", n)
	}

	run(t, conn, call("SELECT retry_job(%s)"))
	run(t, conn, call("SELECT complete_job(%s, $1, '{\"ok\":true}')"), claim())
	if !one[bool](t, conn, `SELECT status = 'completed' AND completed_at IS NOT NULL AND result = '{"ok":true}' AND attempts = 1 AND lease IS NULL FROM jobs`) {
		t.Error("not completed")
	}
	run(t, conn, call("SELECT retry_job(%s)"))
	run(t, conn, call("SELECT fail_job(%s, $1, 'never', NULL, true)"), claim())
	if got := one[string](t, conn, "SELECT status || ' ' || attempts FROM jobs"); got != "failed 1" {
		t.Errorf("fail for good: %s", got)
	}
	run(t, conn, "UPDATE jobs SET status = 'pending', attempts = 0, max_attempts = 99, completed_at = NULL")
	for _, want := range []string{"00:00:30", "00:02:00", "00:08:00"} {
		run(t, conn, call("SELECT fail_job(%s, $1, 'x')"), claim())
		if got := one[string](t, conn, "SELECT (scheduled_for - updated_at)::text FROM jobs"); got != want {
			t.Errorf("backoff %s, want %s", got, want)
		}
		run(t, conn, "UPDATE jobs SET scheduled_for = now()")
	}
	lease := claim()
	refused(t, conn, "23514", "jobs_scheduled_for_is_finite", call("UPDATE jobs SET scheduled_for = 'infinity' WHERE id = %s"))
	run(t, conn, "UPDATE jobs SET attempts = 2000000000")
	run(t, conn, call("SELECT fail_job(%s, $1, 'x')"), lease)
}

func TestHeartbeatExtends(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "INSERT INTO jobs (type) VALUES ('a'); SELECT claim_jobs(); UPDATE jobs SET held_until = now() + interval '1 s'")
	run(t, conn, "SELECT heartbeat_job(id, lease) FROM jobs")
	if !one[bool](t, conn, "SELECT held_until > now() + interval '14 min' FROM jobs") {
		t.Error("held_until was not extended")
	}
	run(t, conn, "UPDATE jobs SET held_until = now() + interval '1 day'")
	run(t, conn, "SELECT heartbeat_job(id, lease) FROM jobs")
	if !one[bool](t, conn, "SELECT held_until > now() + interval '23 h' FROM jobs") {
		t.Error("held_until was cut")
	}
}

func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "INSERT INTO jobs (type, unique_key) VALUES ('a', 'k')")
	cancel := func() string { return one[string](t, conn, "SELECT cancel_job(id)::text FROM jobs WHERE type = 'a'") }
	if got := cancel(); got != "cancelled" {
		t.Errorf("a pending job is %s", got)
	}
	// Set back by hand, it runs, and the old wish is forgotten.
	run(t, conn, "UPDATE jobs SET status = 'pending', completed_at = NULL")
	run(t, conn, "SELECT claim_jobs()")
	if got := cancel(); got != "processing" {
		t.Errorf("a processing job is %s", got)
	}
	if !one[bool](t, conn, "SELECT heartbeat_job(id, lease) FROM jobs") {
		t.Error("the heartbeat doesn't tell of the cancel")
	}
	refused(t, conn, "55000", "is being processed", "SELECT retry_job(id) FROM jobs")
	run(t, conn, "UPDATE jobs SET status = 'pending', scheduled_for = now() + interval '30 s'")
	if got := one[string](t, conn, "SELECT status || ' ' || (completed_at IS NOT NULL) FROM jobs"); got != "cancelled true" {
		t.Errorf("set to pending by its worker it is %s", got)
	}
	if got := cancel(); got != "cancelled" {
		t.Errorf("a cancelled job is %s", got)
	}
	run(t, conn, "SELECT retry_job(id) FROM jobs")
	run(t, conn, "SELECT claim_jobs()")
	cancel()
	run(t, conn, "SELECT fail_job(id, lease, 'stopped') FROM jobs")
	if got := one[string](t, conn, "SELECT status::text FROM jobs"); got != "cancelled" {
		t.Errorf("a failed attempt of a job to be cancelled leaves it %s", got)
	}
	run(t, conn, "INSERT INTO jobs (type, unique_key) VALUES ('a', 'k')")
	refused(t, conn, "23505", "another job of its type and unique_key is pending or processing", "SELECT retry_job(id) FROM jobs WHERE status = 'cancelled'")
	// A unique index of the application's own keeps its own message.
	run(t, conn, "CREATE UNIQUE INDEX mine ON jobs (type) WHERE status = 'pending'; UPDATE jobs SET unique_key = NULL")
	refused(t, conn, "23505", `"mine"`, "SELECT retry_job(id) FROM jobs WHERE status = 'cancelled'")
	refused(t, conn, "P0002", "there is no job", "SELECT retry_job(gen_random_uuid())")
	refused(t, conn, "P0002", "there is no job", "SELECT cancel_job(NULL)")
	refused(t, conn, "23502", "", "SELECT pause_type(NULL)")
}
