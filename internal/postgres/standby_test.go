package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
)

func TestStandbyFollowsAndIsPromoted(t *testing.T) {
	t.Parallel()
	primary := start(t, postgres.Options{})
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), standby.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var promoted, follows bool
	if err := conn.QueryRow(t.Context(), `SELECT pg_is_in_recovery()`).Scan(&follows); err != nil || !follows {
		t.Fatalf("in recovery: %v, %v", follows, err)
	}
	if err := conn.QueryRow(t.Context(), `SELECT pg_promote()`).Scan(&promoted); err != nil || !promoted {
		t.Fatalf("promoted: %v, %v", promoted, err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE t ()`); err != nil {
		t.Error(err)
	}
}
