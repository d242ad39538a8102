package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

var (
	// syncMessage is the protocol's Sync. Out of a transaction the server answers it without making one.
	syncMessage = []byte{'S', 0, 0, 0, 4}

	errNoAnswer = errors.New("no answer to a ping")
)

// question is a ping of the LISTEN connection, whose answer its reader hears and drops.
type question struct {
	to     *link // nil if there is none
	reads  uint64
	before time.Time // when the answer is missing
}

func (q *question) pending() bool { return q.to != nil && q.to.reads.Load() == q.reads }

// heedSilence gives the connection up when the answer is missing.
func (q *question) heedSilence() {
	if q.pending() && !time.Now().Before(q.before) {
		q.to.giveUp(errNoAnswer)
		q.to = nil
	}
}

// ping has both connections answer when that is due. The bell connection's answer is waited for: it must not be taken for
// the next statement's.
func (b *bell) ping(ctx context.Context) error {
	b.asked.heedSilence()
	now := time.Now()
	if now.Before(b.pingAt) {
		return nil
	}
	b.pingAt = now.Add(b.config.PingInterval)
	if !b.asked.pending() {
		b.asked = b.askListener()
	}
	answer, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
	defer cancel()
	pipeline := b.link.conn.PgConn().StartPipeline(answer)
	err := pipeline.Sync()
	if err == nil {
		err = pipeline.Close()
	}
	if err != nil {
		b.asked.heedSilence()
		if answer.Err() != nil {
			err = errNoAnswer
		}
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// askListener sends a Sync over the LISTEN connection, unless LISTEN has yet to return on it: from then on nobody else
// writes to it, but to end it.
func (l *Listener) askListener() question {
	l.mu.Lock()
	to := l.listenOn
	l.mu.Unlock()
	if to == nil || !to.listens.Load() {
		return question{}
	}
	now := time.Now()
	asked := question{to: to, reads: to.reads.Load(), before: now.Add(l.config.EchoTimeout)}
	socket := to.conn.PgConn().Conn()
	// Where any of this fails the reader notices, or there is no answer.
	_ = socket.SetWriteDeadline(asked.before)
	_, _ = socket.Write(syncMessage)
	_ = socket.SetWriteDeadline(time.Time{})
	return asked
}

// heededSocket counts the reads that brought something. Under TLS they are of its records, which do as well.
type heededSocket struct {
	net.Conn
	reads *atomic.Uint64
}

func (s heededSocket) Read(buffer []byte) (int, error) {
	n, err := s.Conn.Read(buffer)
	if n > 0 {
		s.reads.Add(1)
	}
	return n, err
}
