package dispatch

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func smallestDispatcher(t *testing.T, url string) *Dispatcher {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = leastConns
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d, err := New(pool, Config{Types: map[string]Type{"job": {Handler: idleHandler{}}}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// However many statements hang, a heartbeat and a look of the reaper have connections.
func TestReservedConnections(t *testing.T) {
	t.Parallel()
	d := smallestDispatcher(t, pgtest.Migrated(t))
	if !d.register(t.Context()) {
		t.Fatal("not registered")
	}
	d.beats.release()
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	defer hung.Wait()
	defer cancel()
	begun := make(chan struct{}, 20)
	for range cap(begun) {
		hung.Go(func() {
			begun <- struct{}{}
			if _, err := execUnder(ctx, d.shared, "SELECT", "SELECT pg_sleep(60)"); err == nil {
				t.Error("it did not hang")
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	for len(d.shared.room) == 0 { // they are on their way
		<-time.After(time.Millisecond)
	}
	soon, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	if err := d.beat(soon); err != nil {
		t.Error(err)
	}
	if _, err := d.survey(soon, true, true); err != nil {
		t.Error(err)
	}
	d.beats.release()
	d.reaping.release()
}

// The server ends a statement whose client is gone without a word.
func TestServerEndsStatements(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	d := smallestDispatcher(t, url)
	d.sql = newStatements("public", 300*time.Millisecond)
	observer := connect(t, url)
	run(t, observer, `CREATE TABLE stuck ()`)
	tx, err := observer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE stuck`); err != nil {
		t.Fatal(err)
	}
	for _, settings := range []string{d.sql.plain, d.sql.plainSettle, d.sql.briefly} {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeExec // or it would wait for the lock to learn of the statement
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		batch := &pgx.Batch{}
		batch.Queue(settings)
		batch.Queue(`SELECT count(*) FROM stuck`)
		hung := conn.SendBatch(t.Context(), batch)
		_ = conn.PgConn().Conn().Close()
		_ = hung.Close() // what the client sees of it is no matter
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		var waiting int
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE relation = 'stuck'::regclass AND NOT granted`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d statements still wait, and nobody for them", waiting)
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}
