package listener_test

import (
	"testing"

	"github.com/pgbell/pgbell/internal/postgres"
)

// startBouncer runs a real PgBouncer in front of a database, and returns the database's URL through it.
func startBouncer(t *testing.T, databaseURL, mode string) string {
	t.Helper()
	pooler, err := postgres.StartPooler(t.Context(), databaseURL, postgres.PoolerOptions{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pooler.Stop(); err != nil {
			t.Error(err)
		}
	})
	through, err := pooler.URL(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return through
}
