package dispatch

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// reservedConns of the pool are for the claims, the heartbeats and the reaper, one each. All else shares the rest, so that no
	// number of hung statements keeps a heartbeat waiting for a connection.
	reservedConns = 3
	// leastConns leaves one for all else.
	leastConns = reservedConns + 1
)

// sender sends a batch, one transaction, and returns when its answer is there.
type sender interface {
	send(ctx context.Context, batch *pgx.Batch) error
}

// keptConn is the connection that one loop keeps: a lone statement meets a server process that has made the same one before, and where
// the server has no connections left, this one is there already. For one goroutine.
type keptConn struct {
	pool *pgxpool.Pool
	conn *pgxpool.Conn // nil until it is needed, and after a failure
}

func (k *keptConn) send(ctx context.Context, batch *pgx.Batch) error {
	if k.conn == nil {
		conn, err := k.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		k.conn = conn
	}
	err := k.conn.SendBatch(ctx, batch).Close()
	if err != nil {
		k.release()
	}
	return err
}

// release gives the connection back to the pool, which closes it if it is broken.
func (k *keptConn) release() {
	if k.conn != nil {
		k.conn.Release()
		k.conn = nil
	}
}

// shared sends over any connection that is not reserved. For any goroutine.
type shared struct {
	pool *pgxpool.Pool
	room chan struct{} // holds a token for each that is in use
}

func newShared(pool *pgxpool.Pool) shared {
	return shared{pool, make(chan struct{}, pool.Config().MaxConns-reservedConns)}
}

func (s shared) send(ctx context.Context, batch *pgx.Batch) error {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	defer func() { <-s.room }()
	return s.pool.SendBatch(ctx, batch).Close()
}
