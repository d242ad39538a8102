package main

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// Of an idle connection only one is pinged that has something to say, such as that it was ended.
func TestIdleConnectionsArePingedOnlyWhenTheyMayBeGone(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	admin := pgtest.Pool(t, url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	idle := func(length time.Duration) bool {
		return shouldPing(t.Context(), pgxpool.ShouldPingParams{Conn: conn, IdleDuration: length})
	}
	if idle(time.Minute) {
		t.Error("a connection that is fine is pinged after a minute")
	}
	if !idle(time.Hour) {
		t.Error("a connection is not pinged after an hour")
	}
	if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, conn.PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !idle(time.Minute) {
		select {
		case <-deadline:
			t.Fatal("a connection that was ended is not pinged")
		case <-tick.C:
		}
	}
	if idle(time.Second) {
		t.Error("a connection is pinged that was just used")
	}
}

// A pool of ours goes on after all its connections were ended, without an error.
func TestPoolNoticesThatItsConnectionsWereEnded(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	config.ShouldPing = func(ctx context.Context, params pgxpool.ShouldPingParams) bool {
		asked.Add(1)
		params.IdleDuration += 2 * pingNever
		return shouldPing(ctx, params)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var pid int
	if err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if _, err := pgtest.Pool(t, url).Exec(t.Context(), `SELECT pg_terminate_backend($1, 10000)`, pid); err != nil {
		t.Fatal(err)
	}
	var now int
	if err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&now); err != nil || now == pid {
		t.Errorf("process %d, then %d, %v", pid, now, err)
	}
	if asked.Load() == 0 {
		t.Error("the pool never asked")
	}
}
