package listener

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// nudge lets other goroutines interrupt one that waits on a connection.
type nudge struct {
	mu        sync.Mutex
	given     bool
	interrupt context.CancelFunc
}

// now makes the present or the next wait return.
func (n *nudge) now() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.given = true
	if n.interrupt != nil {
		n.interrupt()
	}
}

// wait reads conn until a notification comes, until is reached, or now is called, and then returns nil. An error means
// that the connection is lost or ctx is done. pgx bears being interrupted here: it sets a deadline on the socket,
// keeps the part of a message that it has read, and takes the deadline back.
func (n *nudge) wait(ctx context.Context, conn *pgx.Conn, until time.Time) error {
	n.mu.Lock()
	if n.given {
		n.given = false
		n.mu.Unlock()
		return ctx.Err()
	}
	waiting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	n.interrupt = cancel
	n.mu.Unlock()

	_, err := conn.WaitForNotification(waiting)

	n.mu.Lock()
	n.interrupt, n.given = nil, false
	n.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && (conn.IsClosed() || waiting.Err() == nil) {
		return err
	}
	return nil
}
