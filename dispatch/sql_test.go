package dispatch

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// Every statement fits the migrated schema, also one whose name needs quoting.
func TestStatementsPrepare(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"public", "Odd schema's"} {
		conn := connect(t, pgtest.Empty(t))
		if err := migrations.Up(t.Context(), conn, migrations.Config{Schema: schema}); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		all := reflect.ValueOf(newStatements(schema, time.Second))
		for i := range all.NumField() {
			name := all.Type().Field(i).Name
			if _, err := conn.Prepare(t.Context(), name, all.Field(i).String()); err != nil {
				t.Errorf("schema %q: prepare %s: %v", schema, name, err)
			}
		}
		for name, statement := range map[string]string{"horizon": horizonSQL} {
			if _, err := conn.Prepare(t.Context(), name, statement); err != nil {
				t.Errorf("prepare %s: %v", name, err)
			}
		}
	}
}

// The hot statements go by their indexes, with statistics as a queue has them: taken when all was pending, or when nothing
// was, or never.
func TestHotStatementsUseTheirIndexes(t *testing.T) {
	t.Parallel()
	backlog := `INSERT INTO jobs (type, priority, scheduled_for)
		SELECT 'type' || n % 5, n % 3, now() + (n % 7 - 3) * interval '1 min' FROM generate_series(1, 30000) n`
	held := `UPDATE jobs SET status = 'processing', lease = gen_random_uuid(), worker_id = 1 + (hashtext(id::text) & 3) WHERE type = 'type0'`
	for name, setUp := range map[string][]string{
		"all was pending":   {backlog, `ANALYZE jobs`, held},
		"nothing was there": {`ANALYZE jobs`, backlog, held},
		"just analyzed":     {backlog, held, `ANALYZE jobs`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, pgtest.Migrated(t))
			run(t, conn, `ALTER TABLE jobs SET (autovacuum_enabled = off)`)
			for _, statement := range setUp {
				run(t, conn, statement)
			}
			sql := newStatements("public", time.Second)
			const (
				levels  = `'{type1,type2}', '{1,0}', '{-infinity,2020-01-01}', '{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff}'`
				ids     = `(SELECT array_agg(id) FROM (SELECT id FROM jobs WHERE status = 'processing' LIMIT 500) j)`
				leases  = `(SELECT array_agg(lease) FROM (SELECT lease FROM jobs WHERE status = 'processing' LIMIT 500) j)`
				outcome = `'{}'`
			)
			arrays := fmt.Sprintf("%s, %s, %s", ids, leases, outcome)
			for _, hot := range []struct{ name, statement, arguments, index string }{
				{"claim", sql.claim, `1, true, 1000, 100, ` + levels, "jobs_claim"},
				{"claimMerged", sql.claimMerged, `1, true, 1000, 100, ` + levels + `, '{type1,type2}', '{50,50}', '{f,t}', 50`, "jobs_claim"},
				{"next", sql.next, `'{type1,type2}', '{1,0}', 1`, "jobs_claim"},
				{"walk", sql.walk, `'{type1,type2}', 100, '{5,9223372036854775807}'`, "jobs_claim"},
				{"walkOthers", sql.walkOthers, `'{type1,type2}', 100, 'type0', 2`, "jobs_claim"},
				{"complete", sql.complete, arrays, "jobs_pkey"},
				{"completeGone", sql.completeGone, ids + ", " + leases, "jobs_pkey"},
				{"settle", sql.settle, arrays + ", true, true", "jobs_pkey"},
				{"held", sql.held, `1`, "jobs_held"},
				{"reapWorker", sql.reapWorker, `1`, "jobs_held"},
				{"reapHeld", sql.reapHeld, ``, "jobs_held"},
				{"suspects", sql.suspects, `1`, "jobs_held"},
				{"prospect", sql.prospect, `1000`, "jobs_claim"},
			} {
				for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
					checkPlan(t, conn, hot.name, hot.statement, hot.arguments, hot.index, mode)
				}
			}
		})
	}
}

func checkPlan(t *testing.T, conn *pgx.Conn, name, statement, arguments, index, mode string) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if arguments != "" {
		arguments = "(" + arguments + ")"
	}
	// EXECUTE takes no subqueries: the arrays are looked up first.
	for strings.Contains(arguments, "(SELECT") {
		from := strings.Index(arguments, "(SELECT")
		to := from + strings.Index(arguments[from:], "j)") + len("j)")
		var value string
		if err := tx.QueryRow(t.Context(), arguments[from:to][len("("):len(arguments[from:to])-len(")")]).Scan(&value); err != nil {
			var list []string
			if err := tx.QueryRow(t.Context(), "SELECT x::text[] FROM ("+arguments[from+1:to-1]+") s(x)").Scan(&list); err != nil {
				t.Fatal(err)
			}
			value = "{" + strings.Join(list, ",") + "}"
		}
		arguments = arguments[:from] + "'" + value + "'" + arguments[to:]
	}
	for _, step := range []string{newStatements("public", time.Minute).plain, `SET LOCAL plan_cache_mode = ` + mode, `PREPARE hot AS ` + statement} {
		if _, err := tx.Exec(t.Context(), step); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	rows, err := tx.Query(t.Context(), `EXPLAIN EXECUTE hot`+arguments, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("explain %s: %v", name, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("explain %s: %v", name, err)
	}
	for i := range lines {
		lines[i] = lines[i][:min(len(lines[i]), 150)]
	}
	plan := strings.Join(lines, "\n")
	if !strings.Contains(plan, "using "+index+" on jobs") && !strings.Contains(plan, "Bitmap Index Scan on "+index) {
		t.Errorf("%s, %s: doesn't use %s:\n%s", name, mode, index, plan)
	}
	if strings.Contains(plan, "Seq Scan on jobs") || strings.Contains(plan, "JIT:") {
		t.Errorf("%s, %s: reads the whole table, or is compiled:\n%s", name, mode, plan)
	}
	if _, err := tx.Exec(t.Context(), `DEALLOCATE hot`); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
