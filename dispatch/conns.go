package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	pool     *pgxpool.Pool
	scarcity *scarcity
	conn     *pgxpool.Conn // nil until it is needed, and after a failure
}

func (k *keptConn) send(ctx context.Context, batch *pgx.Batch) error {
	if k.conn == nil {
		conn, err := k.pool.Acquire(ctx)
		if err != nil {
			k.scarcity.note(err)
			return err
		}
		k.conn = conn
	}
	err := k.conn.SendBatch(ctx, batch).Close()
	if err != nil || k.scarcity.now() {
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

// scarcity is when the server, or a pooler, has no more connections for us than we have. Then nobody keeps one: settles, which keep
// none, would get none.
type scarcity struct {
	till atomic.Int64 // nanoseconds since 1970
	tell nudge        // the heartbeats' loop, which may have nothing to send for a minute
}

const scarceFor = 10 * time.Second

func (s *scarcity) note(err error) {
	var refused *pgconn.ConnectError
	var answer *pgconn.PgError
	// PgBouncer at its max_client_conn says protocol_violation.
	if errors.As(err, &refused) && errors.As(err, &answer) && (answer.Code == "53300" || answer.Code == "08P01") {
		s.till.Store(time.Now().Add(scarceFor).UnixNano())
		s.tell.send()
	}
}

func (s *scarcity) now() bool { return time.Now().UnixNano() < s.till.Load() }

// shared sends over any connection that is not reserved. For any goroutine.
type shared struct {
	pool     *pgxpool.Pool
	scarcity *scarcity
	room     chan struct{} // holds a token for each that is in use
}

func newShared(pool *pgxpool.Pool, scarcity *scarcity) shared {
	return shared{pool, scarcity, make(chan struct{}, pool.Config().MaxConns-reservedConns)}
}

func (s shared) send(ctx context.Context, batch *pgx.Batch) error {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	defer func() { <-s.room }()
	err := s.pool.SendBatch(ctx, batch).Close()
	s.scarcity.note(err)
	return err
}
