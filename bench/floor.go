package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// loops is the floor of throughput: each loop claims a batch and settles it, until there is nothing left. The same columns
// are written with the same two commits as pgbell writes them; there is one type, no limit, no heartbeat, no retry.
type loops struct {
	pgbell
	batch, connections int
}

func (l loops) name() string {
	return fmt.Sprintf("floor: %d pgx loops, batches of %d", l.connections, l.batch)
}
func (loops) tuning() string {
	return "claim and settle a batch, in a loop per connection; no job logic"
}
func (loops) role() role { return floor }

func (l loops) boot(ctx context.Context, url string, load load) (worker, error) {
	pool, err := openPool(ctx, url, l.connections)
	if err != nil {
		return nil, err
	}
	return &looping{loops: l, pool: pool, recorder: load.recorder, cancel: func() {}}, nil
}

type looping struct {
	loops
	pool     *pgxpool.Pool
	recorder *recorder
	cancel   context.CancelFunc
	all      sync.WaitGroup
	mutex    sync.Mutex
	err      error
}

func (l *looping) work(ctx context.Context) error {
	ctx, l.cancel = context.WithCancel(ctx)
	for range l.connections {
		l.all.Go(func() {
			for claimed := 1; claimed > 0; {
				var err error
				if claimed, err = floorBatch(ctx, l.pool, l.batch, l.deletes, l.recorder); err != nil {
					if ctx.Err() != nil {
						return // stopped while it looked for more
					}
					l.mutex.Lock()
					l.err = errors.Join(l.err, err)
					l.mutex.Unlock()
					return
				}
			}
		})
	}
	return nil
}

func (*looping) collect(context.Context) error { return nil }

func (l *looping) stop() error {
	l.cancel()
	l.all.Wait()
	l.pool.Close()
	return l.err
}

// floorBatch claims a batch, notes each job as it comes, and settles them.
func floorBatch(ctx context.Context, pool *pgxpool.Pool, batch int, deletes bool, recorder *recorder) (int, error) {
	rows, err := pool.Query(ctx, floorClaimSQL, "bench", batch)
	if err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	defer rows.Close()
	var ids, leases []pgtype.UUID
	for rows.Next() {
		var id, lease pgtype.UUID
		var kind, payload string
		var priority, attempts, most int
		var created, scheduled time.Time
		if err := rows.Scan(&id, &lease, &kind, &payload, &priority, &attempts, &most, &created, &scheduled); err != nil {
			return 0, fmt.Errorf("read claim: %w", err)
		}
		recorder.begin(number([]byte(payload)))
		ids, leases = append(ids, id), append(leases, lease)
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	settle := floorSettleSQL
	if deletes {
		settle = floorDeleteSQL
	}
	tag, err := pool.Exec(ctx, settle, ids, leases)
	if err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	if tag.RowsAffected() != int64(len(ids)) {
		return 0, fmt.Errorf("settled %d of %d", tag.RowsAffected(), len(ids))
	}
	return len(ids), nil
}

// listening is the floor of latency: a plain NOTIFY trigger, a LISTEN, and per notification one claim and one settle.
type listening struct{ pgbell }

func (listening) name() string   { return "floor: LISTEN, then a bare claim" }
func (listening) tuning() string { return "a plain NOTIFY trigger; no job logic" }
func (listening) role() role     { return floor }

func (l listening) install(ctx context.Context, url string, jobs int) error {
	if err := l.pgbell.install(ctx, url, jobs); err != nil {
		return err
	}
	return execute(ctx, url, dropTriggersSQL, notifyTriggerSQL)
}

func (listening) boot(ctx context.Context, url string, load load) (worker, error) {
	pool, err := openPool(ctx, url, 1)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		_, err = conn.Exec(ctx, listenSQL)
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &listened{pool: pool, conn: conn, recorder: load.recorder, cancel: func() {}}, nil
}

type listened struct {
	pool     *pgxpool.Pool
	conn     *pgx.Conn
	recorder *recorder
	cancel   context.CancelFunc
	one      sync.WaitGroup
	err      error
}

func (l *listened) work(ctx context.Context) error {
	ctx, l.cancel = context.WithCancel(ctx)
	l.one.Go(func() {
		for {
			if _, err := l.conn.WaitForNotification(ctx); err != nil {
				return // stopped; a lost connection shows as jobs that did not run
			}
			if _, err := floorBatch(ctx, l.pool, 1, false, l.recorder); err != nil && ctx.Err() == nil {
				l.err = err
				return
			}
		}
	})
	return nil
}

func (*listened) collect(context.Context) error { return nil }

func (l *listened) stop() error {
	l.cancel()
	l.one.Wait()
	l.pool.Close()
	_ = l.conn.Close(context.Background())
	return l.err
}

// idleTable takes inserts and has nobody who runs them: the floor of producers.
type idleTable struct {
	pgbell
	called string
	sql    []string
}

func (t idleTable) name() string { return t.called }
func (idleTable) tuning() string { return "pgbell's table with its indexes, no worker" }
func (idleTable) role() role     { return floor }

func (t idleTable) install(ctx context.Context, url string, jobs int) error {
	if err := t.pgbell.install(ctx, url, jobs); err != nil {
		return err
	}
	return execute(ctx, url, append([]string{dropTriggersSQL}, t.sql...)...)
}

func (idleTable) boot(context.Context, string, load) (worker, error) { return nobody{}, nil }

type nobody struct{}

func (nobody) work(context.Context) error    { return nil }
func (nobody) collect(context.Context) error { return nil }
func (nobody) stop() error                   { return nil }
