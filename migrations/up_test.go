package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

func status(t testing.TB, conn *pgx.Conn, schema string) migrations.Report {
	t.Helper()
	report, err := migrations.Status(t.Context(), conn, migrations.Config{Schema: schema})
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	return report
}

func TestSchemaNames(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	for _, schema := range []string{"My-Schema", "it's", "select", "a.b", "名前", "100%s", "{channel}", `back\slash`, strings.Repeat("x", 56), "-- drop", "a;b"} {
		config := migrations.Config{Schema: schema}
		up(t, conn, config)
		quoted := pgx.Identifier{schema}.Sanitize()
		run(t, conn, "INSERT INTO "+quoted+".jobs (type) VALUES ('a')")
		if n := one[int](t, conn, "SELECT count(*) FROM "+quoted+".claim_jobs()"); n != 1 {
			t.Errorf("schema %q: claimed %d jobs", schema, n)
		}
		if report := status(t, conn, schema); !report.Current {
			t.Errorf("schema %q: not current: %+v", schema, report)
		}
		run(t, conn, "TRUNCATE "+quoted+".jobs")
		if err := migrations.Down(t.Context(), conn, config, migrations.DownOptions{}); err != nil {
			t.Errorf("schema %q: down: %v", schema, err)
		}
		if rest := inventory(t, conn, schema); rest != "" {
			t.Errorf("schema %q: left behind:\n%s", schema, rest)
		}
	}
	for schema, want := range map[string]string{
		strings.Repeat("x", 57): "57 bytes", strings.Repeat("名", 19): "57 bytes", "a$b": "dollar sign", `a"b`: "double quote",
		"a\x00b": "control character", "a\nb": "control character", "a\u0085b": "control character", "a\xff": "UTF-8",
		"pg_x": "reserved", "information_schema": "reserved",
	} {
		if err := migrations.Up(t.Context(), conn, migrations.Config{Schema: schema}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("schema %q: got %v, want an error with %q", schema, err, want)
		}
	}
	if err := migrations.CheckSchema(""); err == nil {
		t.Error("an empty name is taken")
	}
}

// Whatever name CheckSchema takes, the whole installation bears, and goes again.
func TestAnySchemaName(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	rapid.Check(t, func(r *rapid.T) {
		schema := rapid.StringN(1, 20, 60).Draw(r, "schema")
		if migrations.CheckSchema(schema) != nil {
			r.Skip()
		}
		config := migrations.Config{Schema: schema}
		if err := migrations.Up(t.Context(), conn, config); err != nil {
			r.Fatalf("up: %v", err)
		}
		if err := migrations.Down(t.Context(), conn, config, migrations.DownOptions{}); err != nil {
			r.Fatalf("down: %v", err)
		}
		if _, err := conn.Exec(t.Context(), "DROP SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
			r.Fatalf("not left empty: %v", err)
		}
	})
}

func TestConfigMistakesAreAllNamed(t *testing.T) {
	t.Parallel()
	err := migrations.Up(t.Context(), nil, migrations.Config{Schema: "a$", LockTimeout: time.Microsecond, Wait: -1})
	if err == nil || !strings.Contains(err.Error(), "schema") || !strings.Contains(err.Error(), "lock timeout") || !strings.Contains(err.Error(), "wait") {
		t.Errorf("got %v", err)
	}
}

func TestUpTwiceDoesNothing(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	before := inventory(t, conn, "public")
	up(t, conn, migrations.Config{})
	if after := inventory(t, conn, "public"); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}

// A second Up must not even need the table's locks: sidecars start while transactions run.
func TestUpTakesNoLockWhereNothingIsToDo(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	holder, conn := connect(t, url), connect(t, url)
	run(t, holder, "BEGIN")
	run(t, holder, "LOCK TABLE jobs, job_workers, job_types, job_errors IN ACCESS EXCLUSIVE MODE")
	run(t, holder, "SELECT pg_advisory_xact_lock(hashtextextended('pgbell migrate public', 0))")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := migrations.Up(ctx, conn, migrations.Config{Wait: time.Millisecond}); err != nil {
		t.Error(err)
	}
}

func TestTenAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	errs := make([]error, 10)
	var group sync.WaitGroup
	for n := range errs {
		conn := connect(t, url)
		group.Go(func() { errs[n] = migrations.Up(t.Context(), conn, migrations.Config{Schema: "ten"}) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	if n := one[int](t, conn, "SELECT count(*) FROM ten.pgbell_migrations"); n != migrations.Version {
		t.Errorf("%d rows in pgbell_migrations", n)
	}
	if !status(t, conn, "ten").Current {
		t.Error("not current")
	}
}

// Concurrent installations in several schemas make the cluster's roles at once.
func TestSeveralSchemasAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	errs := make([]error, 6)
	var group sync.WaitGroup
	for n := range errs {
		conn := connect(t, url)
		group.Go(func() {
			errs[n] = migrations.Up(t.Context(), conn, migrations.Config{Schema: fmt.Sprintf("s%d", n)})
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	run(t, conn, "INSERT INTO s0.jobs (type) VALUES ('a')")
	if n := one[int](t, conn, "SELECT count(*) FROM s1.claim_jobs()"); n != 0 {
		t.Errorf("s1 claimed %d jobs of s0", n)
	}
	if n := one[int](t, conn, "SELECT count(*) FROM s0.claim_jobs()"); n != 1 {
		t.Errorf("s0 claimed %d jobs", n)
	}
}

func TestChangedMigrationIsNoticed(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	run(t, conn, "UPDATE pgbell_migrations SET checksum = 'another' WHERE version = 2")
	for name, err := range map[string]error{
		"up":    migrations.Up(t.Context(), conn, migrations.Config{}),
		"down":  migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}),
		"check": migrations.Check(t.Context(), conn, "public"),
	} {
		var changed *migrations.ChangedError
		if !errors.As(err, &changed) || changed.Version != 2 || changed.Name != "jobs" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if report := status(t, conn, ""); report.Current || report.Migrations[1].State != migrations.Changed {
		t.Errorf("status: %+v", report)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	expect := func(kind migrations.Mismatch, command string) {
		t.Helper()
		err := migrations.Check(t.Context(), conn, "My schema")
		var mismatch *migrations.SchemaError
		if !errors.As(err, &mismatch) || !migrations.IsMismatch(err, kind) || mismatch.Command != command || !strings.Contains(err.Error(), command) {
			t.Errorf("got %v, want kind %d with %s", err, kind, command)
		}
	}
	expect(migrations.Missing, "pgbell migrate up --schema 'My schema'")
	up(t, conn, migrations.Config{Schema: "My schema"})
	if err := migrations.Check(t.Context(), conn, "My schema"); err != nil {
		t.Errorf("current: %v", err)
	}

	later := func(above int, name string, serves int) {
		t.Helper()
		run(t, conn, fmt.Sprintf(`INSERT INTO "My schema".pgbell_migrations VALUES (%d, '%s', 'x', %d)`, migrations.Version+above, name, serves))
	}
	later(1, "later", migrations.Version)
	if err := migrations.Check(t.Context(), conn, "My schema"); err != nil {
		t.Errorf("a newer schema that still serves this version: %v", err)
	}
	up(t, conn, migrations.Config{Schema: "My schema"})
	if report := status(t, conn, "My schema"); report.Installed != migrations.Version+1 || !report.Current || report.Migrations[migrations.Version].State != migrations.Unknown {
		t.Errorf("status: %+v", report)
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{Schema: "My schema"}, migrations.DownOptions{}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("down from an unknown version: %v", err)
	}

	later(2, "last", migrations.Version+2)
	expect(migrations.Newer, fmt.Sprintf("pgbell migrate down --to %d --schema 'My schema'", migrations.Version))
	if err := migrations.Up(t.Context(), conn, migrations.Config{Schema: "My schema"}); !migrations.IsMismatch(err, migrations.Newer) {
		t.Errorf("up: %v", err)
	}

	run(t, conn, fmt.Sprintf(`DELETE FROM "My schema".pgbell_migrations WHERE version > %d`, migrations.Version))
	if err := migrations.Down(t.Context(), conn, migrations.Config{Schema: "My schema"}, migrations.DownOptions{To: -1}); err != nil {
		t.Fatal(err)
	}
	expect(migrations.Older, "pgbell migrate up --schema 'My schema'")
}

func TestBlockedNamesWhoBlocks(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn, holder := direct(t, url), direct(t, url)
	run(t, conn, recipe)
	run(t, holder, "SET application_name = 'the long report'")
	run(t, holder, "BEGIN")
	run(t, holder, "SELECT count(*) FROM jobs")
	config := migrations.Config{LockTimeout: 20 * time.Millisecond, Wait: 200 * time.Millisecond}

	err := migrations.Up(t.Context(), conn, config)
	var blocked *migrations.BlockedError
	if !errors.As(err, &blocked) || len(blocked.Blockers) != 1 || blocked.Blockers[0].PID != int32(holder.PgConn().PID()) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"the long report", fmt.Sprint("pid ", holder.PgConn().PID()), "AccessShareLock on", "query started 20", "pgbell migrate up"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	run(t, holder, "COMMIT")
	up(t, conn, config)

	run(t, conn, "INSERT INTO jobs (type, payload) VALUES ('a', '{}')")
	run(t, holder, "BEGIN")
	run(t, holder, "UPDATE jobs SET priority = 1")
	run(t, holder, "PREPARE TRANSACTION 'left over'")
	t.Cleanup(func() { _, _ = holder.Exec(context.Background(), "ROLLBACK PREPARED 'left over'") })
	err = migrations.Down(t.Context(), conn, config, migrations.DownOptions{})
	if !errors.As(err, &blocked) || !strings.Contains(err.Error(), `prepared transaction "left over"`) || !strings.Contains(err.Error(), "pgbell migrate down") {
		t.Errorf("got %v", err)
	}
}

func TestBlockedByAnotherMigration(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn, holder := direct(t, url), direct(t, url)
	run(t, holder, "SET application_name = 'other migration'")
	run(t, holder, "BEGIN")
	run(t, holder, "SELECT pg_advisory_xact_lock(hashtextextended('pgbell migrate public', 0))")
	err := migrations.Up(t.Context(), conn, migrations.Config{Wait: 50 * time.Millisecond})
	var blocked *migrations.BlockedError
	if !errors.As(err, &blocked) || len(blocked.Blockers) != 1 || !strings.Contains(err.Error(), `"other migration"`) || !strings.Contains(err.Error(), "the migration lock") {
		t.Fatalf("got %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- migrations.Up(t.Context(), conn, migrations.Config{}) }()
	run(t, holder, "COMMIT")
	if err := <-done; err != nil {
		t.Errorf("after the other ended: %v", err)
	}
}

// While a migration waits for a table, the application's statements get through between its tries.
func TestOthersGetThroughWhileUpWaits(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn, holder, app := direct(t, url), direct(t, url), direct(t, url)
	run(t, conn, recipe)
	run(t, holder, "BEGIN")
	run(t, holder, "SELECT count(*) FROM jobs")
	done := make(chan error, 1)
	go func() {
		done <- migrations.Up(t.Context(), conn, migrations.Config{LockTimeout: 50 * time.Millisecond})
	}()
	eventually(t, "the migration waits for the table", func() bool {
		return one[bool](t, app, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted AND mode = 'AccessExclusiveLock')")
	})
	run(t, app, "SET statement_timeout = '5s'")
	run(t, app, "INSERT INTO jobs (type, payload) VALUES ('a', '{}')")
	run(t, holder, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !status(t, conn, "").Adopted {
		t.Error("not adopted")
	}
}

func TestPrivilegesAreNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	admin := connect(t, url)
	role := loginRole(t, admin)
	conn := as(t, url, role)
	run(t, admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	for schema, grant := range map[string]string{
		"public": `GRANT USAGE, CREATE ON SCHEMA "public" TO "` + role + `"`,
		"new":    `CREATE SCHEMA "new" AUTHORIZATION "` + role + `"`,
	} {
		err := migrations.Up(t.Context(), conn, migrations.Config{Schema: schema})
		var lacking *migrations.PrivilegeError
		if !errors.As(err, &lacking) || !strings.Contains(err.Error(), grant) {
			t.Errorf("schema %s: got %v, want %s", schema, err, grant)
		}
	}
	up(t, admin, migrations.Config{})
	var lacking *migrations.PrivilegeError
	if err := migrations.Check(t.Context(), conn, "public"); !errors.As(err, &lacking) || !strings.Contains(err.Error(), `GRANT pgbell_worker TO "`+role+`"`) {
		t.Errorf("check: %v", err)
	}
	run(t, admin, `GRANT pgbell_worker TO "`+role+`"`)
	if err := migrations.Check(t.Context(), conn, "public"); err != nil {
		t.Errorf("check as a worker: %v", err)
	}
	// The owner of the schema needs nothing else: neither superuser nor CREATEROLE.
	run(t, admin, `CREATE SCHEMA own AUTHORIZATION "`+role+`"`)
	up(t, conn, migrations.Config{Schema: "own"})
	run(t, conn, "INSERT INTO own.jobs (type) VALUES ('a')")
	if n := one[int](t, conn, "SELECT count(*) FROM own.claim_jobs()"); n != 1 {
		t.Errorf("its owner claimed %d jobs", n)
	}
}
