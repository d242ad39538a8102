package dispatch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// pruned has r walk once over all that it thinks is due, and returns how many rows are left.
func pruned(t *testing.T, r *reaper, conn *pgx.Conn, known *ranges) int {
	t.Helper()
	r.look(t.Context())
	select {
	case seen := <-r.walk.turns:
		known.fit(seen)
	default:
		t.Fatal("the look told nothing of the table")
	}
	if err := r.prune(t.Context(), known); err != nil {
		t.Logf("prune: %v", err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM jobs`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	r.watch.due = time.Time{}
	return left
}

func kept(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT type FROM jobs`)
	if err != nil {
		t.Fatal(err)
	}
	types, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(types)
	return types
}

// What somebody has changed by hand is kept from its last change on; what isn't finished, always.
func TestPruneGoesByTheLaterOfEndAndChange(t *testing.T) {
	t.Parallel()
	r, _, conn := surveyed(t)
	run(t, conn, `INSERT INTO jobs (type, status, completed_at, updated_at) VALUES
		('gone: old', 'completed', now() - interval '8 d', now() - interval '8 d'),
		('gone: no end', 'completed', NULL, now() - interval '8 d'),
		('gone: cancelled', 'cancelled', NULL, now() - interval '8 d'),
		('gone: failed', 'failed', now() - interval '31 d', now() - interval '31 d'),
		('kept: failed', 'failed', now() - interval '29 d', now() - interval '29 d'),
		('kept: touched', 'completed', now() - interval '8 d', now()),
		('kept: end is later', 'completed', now(), now() - interval '8 d'),
		('kept: end is never', 'completed', 'infinity', now() - interval '8 d'),
		('kept: pending', 'pending', now() - interval '8 d', now() - interval '8 d'),
		('kept: processing', 'processing', now() - interval '8 d', now())`)
	pruned(t, r, conn, newRanges(r.config.Retention))
	for _, name := range kept(t, conn) {
		if !strings.HasPrefix(name, "kept: ") {
			t.Errorf("%q is still there", name)
		}
	}
	if n := len(kept(t, conn)); n != 6 {
		t.Errorf("%d rows kept, want 6: %q", n, kept(t, conn))
	}
}

// Nothing is read again before something can be old enough; rows that were inserted meanwhile are found by then.
func TestPruneDoesNotReadInVain(t *testing.T) {
	t.Parallel()
	r, said, conn := surveyed(t)
	run(t, conn, `INSERT INTO jobs (type, status, updated_at) SELECT 'x', 'completed', now() - interval '6 d' FROM generate_series(1, 20000)`)
	known := newRanges(r.config.Retention)
	if left := pruned(t, r, conn, known); left != 20000 {
		t.Errorf("%d left", left)
	}
	before, _ := said.count()
	pruned(t, r, conn, known)
	if after, _ := said.count(); after != before+1 {
		t.Errorf("%d transactions for a second look, want the survey alone", after-before)
	}
	// A day later, as the map has it, although times of day don't pass here.
	for i := range known.due {
		if in := known.due[i] - time.Since(r.epoch); in > 24*time.Hour || in < 23*time.Hour {
			t.Errorf("range %d is due in %s, want a day", i, in)
		}
		known.due[i] = 0
	}
	run(t, conn, `UPDATE jobs SET updated_at = now() - interval '8 d'`)
	run(t, conn, `INSERT INTO job_errors (job_id, lease, attempt, error) SELECT id, gen_random_uuid(), 1, '' FROM jobs LIMIT 100`)
	for left := 1; left > 0; {
		left = pruned(t, r, conn, known)
		if left > 0 && !slices.Contains(known.due, 0) {
			t.Fatalf("%d left", left)
		}
	}
	var errors int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM job_errors`).Scan(&errors); err != nil || errors != 0 {
		t.Errorf("%d errors left, %v", errors, err)
	}
}

// A row that somebody has locked, or that something refers to, keeps nothing else.
func TestPrunePassesOverWhatItMayNotDelete(t *testing.T) {
	t.Parallel()
	r, _, conn := surveyed(t)
	run(t, conn, `INSERT INTO jobs (type, status, updated_at) SELECT CASE n WHEN 1 THEN 'locked' ELSE 'x' END, 'completed', now() - interval '8 d' FROM generate_series(1, 1000) n`)
	other := connect(t, conn.Config().ConnString())
	run(t, other, `BEGIN`)
	run(t, other, `SELECT FROM jobs WHERE type = 'locked' FOR UPDATE`)
	if left := pruned(t, r, conn, newRanges(r.config.Retention)); left != 1 {
		t.Errorf("%d left, want the locked one", left)
	}
	run(t, other, `ROLLBACK`)

	run(t, conn, `CREATE TABLE invoices (job uuid REFERENCES jobs)`)
	run(t, conn, `INSERT INTO invoices SELECT id FROM jobs`)
	run(t, conn, `INSERT INTO jobs (type, status, updated_at, payload) SELECT 'x', 'completed', now() - interval '8 d',
		jsonb_build_object('filler', repeat('x', 1500)) FROM generate_series(1, 2000) n`) // more than one range
	if left := pruned(t, r, conn, newRanges(r.config.Retention)); left < 1 || left > 1500 {
		t.Errorf("%d left, want those alone that share a range with the one that is referred to", left)
	}
}

// One sidecar of a fleet prunes: the oldest that lives.
func TestOneSidecarPrunes(t *testing.T) {
	t.Parallel()
	r, _, conn := surveyed(t)
	turn := func() bool {
		r.watch.due = time.Time{}
		r.look(t.Context())
		return (<-r.walk.turns).turn
	}
	run(t, conn, `INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after)
		VALUES ('older', '', 1, 1, '{}', '15 s', '1.5 s')`)
	if err := r.tryRegister(t.Context()); err != nil {
		t.Fatal(err)
	}
	if turn() {
		t.Error("it is the older one's turn")
	}
	run(t, conn, `UPDATE job_workers SET heartbeat_at = now() - interval '5 min' WHERE name = 'older'`)
	if !turn() {
		t.Error("the older one hangs: it should be ours")
	}
	run(t, conn, `UPDATE job_workers SET heartbeat_at = now(), dead_at = now() WHERE name = 'older'`)
	if !turn() {
		t.Error("the older one is dead: it should be ours")
	}
}
