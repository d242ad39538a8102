package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// A plan is made once, often while the table is empty, and stays for as long as nothing analyses the table: then too it must
// not read what isn't its own.
func TestPlansOfAnEmptyTableHold(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Migrated(t))
	run(t, conn, `ALTER TABLE jobs SET (autovacuum_enabled = off)`)
	run(t, conn, `INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after) VALUES ('', '', 1, 1, '{mine}', '1 h', '1 s')`)
	sql := newStatements("public", time.Second)
	run(t, conn, sql.plain)
	run(t, conn, strings.ReplaceAll(sql.plain, "true)", "false)"))
	const levels = `'{mine,mine}', '{1,0}', '{-infinity,-infinity}', '{00000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-000000000000}'`
	const nobody = `'{00000000-0000-0000-0000-000000000000}', '{00000000-0000-0000-0000-000000000000}'`
	hot := []struct{ name, statement, arguments string }{
		{"claim", sql.claim, `1, false, 1000, 10, ` + levels},
		{"claimMerged", sql.claimMerged, `1, false, 1000, 10, ` + levels + `, '{mine}', '{5}', '{f}', 5`},
		{"next", sql.next, `'{mine}', '{0}', 1`},
		{"walk", sql.walk, `'{mine}', 100, '{9223372036854775807}'`},
		{"walkOthers", sql.walkOthers, `'{foreign}', 100, '', 0`},
		{"complete", sql.complete, nobody + `, null`},
		{"completeGone", sql.completeGone, nobody},
		{"settle", sql.settle, nobody + `, '{}', true, true`},
		{"unlocked", sql.unlocked, nobody},
		{"held", sql.held, `2`},
		{"release", sql.release, nobody},
		{"suspects", sql.suspects, `2`},
		{"reapWorker", sql.reapWorker, `2`},
		{"reapHeld", sql.reapHeld, ``},
		{"prospect", sql.prospect, `1000`},
	}
	explain := func(name, arguments string) int {
		t.Helper()
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if arguments != "" {
			arguments = "(" + arguments + ")"
		}
		var explained []struct{ Plan plan }
		if err := tx.QueryRow(t.Context(), fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE %s%s`, name, arguments),
			pgx.QueryExecModeSimpleProtocol).Scan(&explained); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return explained[0].Plan.Hit + explained[0].Plan.Read
	}
	for _, each := range hot {
		run(t, conn, `PREPARE `+each.name+` AS `+each.statement)
		explain(each.name, each.arguments)
	}
	run(t, conn, `INSERT INTO jobs (type) SELECT 'foreign' FROM generate_series(1, 20000)`)
	run(t, conn, `INSERT INTO jobs (type, scheduled_for) SELECT 'mine', now() + interval '1 h' FROM generate_series(1, 20000)`)
	run(t, conn, `INSERT INTO jobs (type, status, worker_id, lease) SELECT 'mine', 'processing', 1, gen_random_uuid() FROM generate_series(1, 20000)`)
	run(t, conn, `INSERT INTO jobs (type) SELECT 'mine' FROM generate_series(1, 10)`)
	for _, each := range hot {
		if n := explain(each.name, each.arguments); n > 300 {
			t.Errorf("%s touches %d buffers with a plan that was made while the table was empty", each.name, n)
		}
	}
}
