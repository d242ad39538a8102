package dispatch

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// released are the statements of a release, by name.
func released(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	statements := map[string]string{}
	for part := range strings.SplitSeq("\n"+string(text), "\n-- name: ") {
		if name, statement, named := strings.Cut(part, "\n"); named && !strings.HasPrefix(part, "\n") {
			statements[name] = statement
		}
	}
	return statements
}

// A migration must not break the sidecars of the versions that it says it serves: while a deploy goes on, they run on its
// schema. What each release says to the database is kept in testdata.
func TestReleasedSidecarsRunOnThisSchema(t *testing.T) {
	t.Parallel()
	database := pgtest.Migrated(t)
	report, err := migrations.Status(t.Context(), connect(t, database), migrations.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Installed != SchemaVersion {
		t.Errorf("the schema has version %d, this package speaks %d", report.Installed, SchemaVersion)
	}
	for version := max(report.Serves, 2); version < SchemaVersion; version++ {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			sql := released(t, filepath.Join("testdata", fmt.Sprintf("statements_%d.sql", version)))
			if len(sql) < 20 {
				t.Fatalf("%d statements", len(sql))
			}
			conn := connect(t, pgtest.Migrated(t))
			for name, statement := range sql {
				if _, err := conn.Prepare(t.Context(), name, statement); err != nil {
					t.Errorf("prepare %s: %v", name, err)
				}
			}
			liveByReleased(t, conn, sql)
		})
	}
}

// liveByReleased leads jobs through their lives by the statements of a release.
func liveByReleased(t *testing.T, conn *pgx.Conn, sql map[string]string) {
	t.Helper()
	scan := func(statement string, into []any, arguments ...any) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), statement, arguments...).Scan(into...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	var worker, other int32
	scan(sql["register"], []any{&worker, &other}, "old", "0.1.0", 2, 10, []string{"work"}, 15.0, 1.5)
	run(t, conn, `INSERT INTO jobs (type, payload) SELECT 'work', '{"n": 1}' FROM generate_series(1, 4)`)
	claimed, err := conn.Query(t.Context(), sql["claim"], worker, true, 1000, 3, []string{"work"}, []int32{0},
		[]string{"-infinity"}, []string{"00000000-0000-0000-0000-000000000000"})
	if err != nil {
		t.Fatal(err)
	}
	type held struct{ ID, Lease string }
	jobs, err := pgx.CollectRows(claimed, func(row pgx.CollectableRow) (held, error) {
		values, err := row.Values()
		if err != nil || len(values) != 14 {
			return held{}, fmt.Errorf("%d columns: %w", len(values), err)
		}
		return held{fmt.Sprintf("%x", values[0]), fmt.Sprintf("%x", values[9])}, nil
	})
	if err != nil || len(jobs) != 3 {
		t.Fatalf("claimed %d: %v", len(jobs), err)
	}
	status := func(job held) (now string) {
		t.Helper()
		scan(`SELECT format('%s %s %s', status, attempts, crashes) FROM jobs WHERE id = $1`, []any{&now}, job.ID)
		return now
	}
	if _, err := conn.Exec(t.Context(), sql["complete"], []string{jobs[0].ID}, []string{jobs[0].Lease}, nil); err != nil || status(jobs[0]) != "completed 1 0" {
		t.Errorf("complete: %v, %s", err, status(jobs[0]))
	}
	var lease, what string
	scan(`SELECT lease::text FROM jobs WHERE id = $1`, []any{&lease}, jobs[1].ID)
	scan(sql["settle"], []any{nil, &what}, []string{jobs[1].ID}, []string{jobs[1].Lease}, fmt.Sprintf(`{%q: {"what": "retry", "error": "no", "delay": 60}}`, lease), true, true)
	if what != "retry" || status(jobs[1]) != "pending 1 0" {
		t.Errorf("settle: %s, %s", what, status(jobs[1]))
	}
	scan(sql["beat"], []any{&other}, worker)

	var reaper int32
	scan(sql["register"], []any{&reaper, &other}, "another", "0.1.0", 2, 10, []string{"work"}, 15.0, 1.5)
	run(t, conn, `UPDATE job_workers SET heartbeat_at = now() - interval '1 h' WHERE name = 'old'`)
	var suspect int32
	var heartbeat any
	var dead, expired, absent, marked, again bool
	var deadAfter float64
	scan(sql["suspects"], []any{&suspect, &heartbeat, &dead, &expired, &deadAfter, &absent}, reaper)
	if suspect != worker || dead || !expired {
		t.Errorf("suspect %d, dead %t, expired %t", suspect, dead, expired)
	}
	scan(sql["markDead"], []any{&marked}, worker, heartbeat)
	scan(sql["reapWorker"], []any{&again}, worker)
	if !marked || !again || status(jobs[2]) != "pending 1 1" {
		t.Errorf("reaped: %t %t %s", marked, again, status(jobs[2]))
	}
	if _, err := conn.Exec(t.Context(), sql["unregister"], reaper); err != nil {
		t.Errorf("unregister: %v", err)
	}
}
