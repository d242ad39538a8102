package migrations_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

// pooled puts a PgBouncer in transaction mode, with two server connections, before a database.
func pooled(t testing.TB, database string) string {
	t.Helper()
	pooler, err := postgres.StartPooler(t.Context(), database, postgres.PoolerOptions{PoolSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pooler.Stop(); err != nil {
			t.Error(err)
		}
	})
	through, err := pooler.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	return through
}

func TestThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	server := pgtest.Empty(t)
	database := pooled(t, server)
	errs := make([]error, 6)
	var group sync.WaitGroup
	for n := range errs {
		conn := connect(t, database)
		group.Go(func() {
			errs[n] = errors.Join(migrations.Up(t.Context(), conn, migrations.Config{}), migrations.Check(t.Context(), conn, "public"))
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, database)
	if !status(t, conn, "").Current {
		t.Error("not current")
	}
	inspector := direct(t, server)
	// Nothing stays with the pooler's own sessions: no lock, no setting, no prepared statement.
	if n := one[int](t, inspector, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); n != 0 {
		t.Errorf("%d advisory locks are left", n)
	}
	for range 4 {
		var path, timeout string
		var prepared int
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('search_path'), current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements)",
			pgx.QueryExecModeSimpleProtocol).Scan(&path, &timeout, &prepared); err != nil {
			t.Fatal(err)
		}
		if path != `"$user", public` || timeout != "0" || prepared != 0 {
			t.Errorf("left: search_path %s, lock_timeout %s, %d prepared statements", path, timeout, prepared)
		}
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Error(err)
	}
	if rest := inventory(t, inspector, "public"); rest != "" {
		t.Errorf("left behind:\n%s", rest)
	}
}
