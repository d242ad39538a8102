package listener

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// lockPause is the time between two tries to take a presence lock that somebody else holds.
const lockPause = time.Second

var errNoWorker = errors.New("announce presence: a worker number is positive")

// presence is what was announced and whether the lock stands for it.
type presence struct {
	mu     sync.Mutex
	worker int32 // 0: nobody
	held   bool
}

// presenceKey is the two keys of a presence lock. The zero value is none: no table has the oid 0.
type presenceKey struct {
	jobs   uint32
	worker int32
}

// Announce makes this process present as worker, its number in job_workers: the bell connection takes the lock P after its
// first echo, and again whenever it was made anew. It blocks until ctx is done, and then gives the lock up and returns
// nil. Only one Announce at a time.
func (l *Listener) Announce(ctx context.Context, worker int32) error {
	if worker <= 0 {
		return fmt.Errorf("%w, not %d", errNoWorker, worker)
	}
	if err := l.presence.announce(worker); err != nil {
		return err
	}
	l.bell.now()
	<-ctx.Done()
	l.presence.withdraw()
	l.bell.now()
	return nil
}

// Present reports whether the presence lock is held at present.
func (l *Listener) Present() bool {
	l.presence.mu.Lock()
	defer l.presence.mu.Unlock()
	return l.presence.held
}

func (p *presence) announce(worker int32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.worker != 0 {
		return fmt.Errorf("announce presence: worker %d is announced already", p.worker)
	}
	p.worker = worker
	return nil
}

func (p *presence) withdraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worker, p.held = 0, false
}

func (p *presence) announced() int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worker
}

// hold notes that the lock is held for worker, unless another was announced since.
func (p *presence) hold(worker int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = p.worker == worker
}

// lose notes that the lock is gone, with its connection or by being given up.
func (p *presence) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
}

// bePresent brings the lock that the bell connection holds in line with what was announced.
func (b *bell) bePresent(ctx context.Context) error {
	var wanted presenceKey
	if worker := b.presence.announced(); worker != 0 {
		wanted = presenceKey{b.jobs, worker}
	}
	b.lockAt = time.Time{}
	if wanted == b.held {
		return nil
	}
	statement, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
	defer cancel()
	var done bool
	if b.held != (presenceKey{}) {
		b.presence.lose()
		if err := b.link.conn.QueryRow(statement, sqlUnlock, int32(b.held.jobs), b.held.worker).Scan(&done); err != nil {
			return fmt.Errorf("release presence lock: %w", err)
		}
		b.held = presenceKey{}
	}
	if heard, _ := b.hearing.now(); !heard || wanted.worker == 0 {
		return nil
	}
	if wanted.jobs == 0 {
		b.advise("there is no table jobs in schema " + b.config.Schema + " (pgbell migrate up makes it)")
		return nil
	}
	if err := b.link.conn.QueryRow(statement, sqlLock, int32(wanted.jobs), wanted.worker).Scan(&done); err != nil {
		return fmt.Errorf("take presence lock: %w", err)
	}
	if !done {
		b.advise("another session holds it, such as an older connection of this process that the server believes alive")
		b.lockAt = time.Now().Add(lockPause)
		return nil
	}
	b.held, b.advised = wanted, false
	b.presence.hold(wanted.worker)
	return nil
}

func (b *bell) advise(why string) {
	if !b.advised {
		b.advised = true
		b.logger.Warn().Int32("worker", b.presence.announced()).Str("cause", why).Msg("presence lock is not held: heartbeats alone show that this process lives")
	}
}
