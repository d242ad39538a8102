package dispatch

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// A shutdown that comes while the Dispatcher waits for slots is the end of claims.
func TestNoClaimAfterShutdown(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	d, err := New(pgtest.Pool(t, url), Config{Types: map[string]Type{"job": {Handler: idleHandler{}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !d.register(t.Context()) {
		t.Fatal("not registered")
	}
	t.Cleanup(d.claims.release)
	conn := connect(t, url)
	run(t, conn, `INSERT INTO jobs (type) VALUES ('job')`)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.turn(done, t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	d.levels.walked = d.epoch // as after the first walk
	if err := d.turn(done, t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	d.crew.running.Wait()
	var attempts int
	if err := conn.QueryRow(t.Context(), `SELECT attempts FROM jobs`).Scan(&attempts); err != nil || attempts != 0 {
		t.Errorf("it was claimed %d times (%v)", attempts, err)
	}
}

func TestTextsOfUUIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) pgtype.UUID {
			return pgtype.UUID{Bytes: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)), Valid: true}
		}
		a, b := draw("a"), draw("b")
		if first, second := texts(a, b); first != a.String() || second != b.String() {
			t.Fatalf("%s, %s, want %s, %s", first, second, a, b)
		}
	})
}
