package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// connect connects to a database, through the pooler if there is one.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	return direct(t, pgtest.PoolURL(url))
}

// direct connects to the server itself: for LISTEN, for settings, roles and locks of a session, and where its process is
// looked for, none of which a transaction pooler keeps to one client.
func direct(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// migrated connects to a new database with pgbell in the schema public.
func migrated(t testing.TB) *pgx.Conn {
	t.Helper()
	return connect(t, pgtest.Migrated(t))
}

func up(t testing.TB, conn *pgx.Conn, config migrations.Config) {
	t.Helper()
	if err := migrations.Up(t.Context(), conn, config); err != nil {
		t.Fatalf("up: %v", err)
	}
}

func run(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func one[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// refused runs a statement that must fail with this SQLSTATE and a message that holds the text.
func refused(t testing.TB, conn *pgx.Conn, state, text, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	var fault *pgconn.PgError
	if !errors.As(err, &fault) || fault.Code != state || !strings.Contains(fault.Message, text) {
		t.Errorf("%s: got %v, want SQLSTATE %s with %q", sql, err, state, text)
	}
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// inventory of a schema: every object, column, constraint, right and setting in it, one a line.
func inventory(t testing.TB, conn *pgx.Conn, schema string) string {
	t.Helper()
	return one[string](t, conn, `
WITH home AS (SELECT oid FROM pg_namespace WHERE nspname = $1), tables AS (SELECT * FROM pg_class WHERE relnamespace = (SELECT oid FROM home))
SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
  SELECT format('relation %s %s rls=%s options=%s acl=%s', relkind, relname, relrowsecurity, reloptions,
    (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(coalesce(relacl, acldefault('r', relowner))) x)) AS line FROM tables
  UNION ALL SELECT format('column %s.%s %s notnull=%s default=%s acl=%s', c.relname, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attacl)
    FROM pg_attribute a JOIN tables c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attnum > 0 AND NOT attisdropped
  UNION ALL SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = (SELECT oid FROM home) AND contype <> 'n'
  UNION ALL SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM pg_index JOIN tables c ON c.oid = indexrelid
  UNION ALL SELECT format('trigger %s %s', c.relname, pg_get_triggerdef(g.oid)) FROM pg_trigger g JOIN tables c ON c.oid = tgrelid WHERE NOT tgisinternal
  UNION ALL SELECT format('policy %s %s %s', c.relname, polname, polcmd) FROM pg_policy JOIN tables c ON c.oid = polrelid
  UNION ALL SELECT format('function %s acl=%s', pg_get_functiondef(oid),
    (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(coalesce(proacl, acldefault('f', proowner))) x)) FROM pg_proc WHERE pronamespace = (SELECT oid FROM home)
  UNION ALL SELECT format('type %s %s', typname, (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
    FROM pg_type t WHERE typnamespace = (SELECT oid FROM home)
) lines`, schema)
}
