package listener

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// usedInterval is the longest time between two canaries while the server's queue of notifications is in use.
const usedInterval = 12 * time.Second

var (
	errSilent   = errors.New("no echo")
	errReadOnly = errors.New("the server is read-only")
)

// bell is one life of the bell connection. Only the goroutine of keepBell uses it.
type bell struct {
	*Listener
	link *link

	answered   uint32 // the server process that the last canary met
	jobs       uint32 // oid of the jobs table then, 0 if there was none
	fullQueue  bool   // of notifications
	readOnly   bool   // what the connection said of its server then
	listens    uint64 // what hearing.listened said when the last canary was sent
	nonce      string
	canaryAt   time.Time // when the last canary was sent
	echoBefore time.Time // when its echo is missing

	pingAt time.Time // when the next ping is due
	asked  question

	sleepers sleepers

	held    presenceKey
	lockAt  time.Time // not before: the next try to take P
	advised bool      // the log says why P can't be taken
}

// keepBell keeps the bell connection until ctx is done.
func (l *Listener) keepBell(ctx context.Context) {
	pause := backoff{min: l.config.ReconnectMin, max: l.config.ReconnectMax}
	for {
		if pause.begun {
			l.metrics.reconnects.WithLabelValues(roleBell).Inc()
		}
		if pause.wait(ctx, l.hearing.calms()) != nil {
			return
		}
		connection, err := l.connect(ctx, roleBell)
		if err != nil {
			if ctx.Err() == nil {
				l.hearing.bellLost(causeOfConnect(roleBell, err))
			}
			continue
		}
		b := &bell{Listener: l, link: connection, pingAt: time.Now().Add(l.config.PingInterval), sleepers: sleepers{logged: map[string]bool{}}}
		err = b.serve(ctx)
		l.presence.lose()
		l.slumber.lost()
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errSilent):
			l.hearing.silent(causeOfSilence(connection.conn.PgConn().PID(), b.answered))
			l.cutListenOn()
		case errors.Is(err, errReadOnly):
			l.hearing.silent(causeOfReadOnly())
			l.cutListenOn()
		default:
			l.hearing.bellLost(causeOfLoss(roleBell, err))
		}
		connection.discard(ctx)
	}
}

// serve does what is due and reads the connection in between, until it is lost, silent, or ctx is done.
func (b *bell) serve(ctx context.Context) error {
	for {
		if err := b.ping(ctx); err != nil {
			return err
		}
		if err := b.chirp(ctx); err != nil {
			return err
		}
		if err := b.bePresent(ctx); err != nil {
			return err
		}
		if err := b.keepSleepers(ctx); err != nil {
			return err
		}
		if err := b.Listener.bell.wait(ctx, b.link.conn, b.nextDue()); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

// chirp sends a canary when it is due, when there is a new LISTEN connection to prove, or when the server has said that it
// became read-only: a pooler may say so of another one.
func (b *bell) chirp(ctx context.Context) error {
	missing := b.hearing.missing(b.nonce)
	if missing && !time.Now().Before(b.echoBefore) {
		return errSilent
	}
	listens := b.hearing.listened()
	now := time.Now()
	doubted := b.link.saysReadOnly() != b.readOnly
	if listens == b.listens && !doubted && (missing || now.Before(b.nextCanary())) {
		return nil
	}
	b.listens, b.nonce = listens, rand.Text()
	b.canaryAt, b.pingAt = now, now.Add(b.config.PingInterval)
	b.queueUsed.Store(false)
	b.hearing.sends(b.nonce, now)
	statement, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
	defer cancel()
	var usage float64
	var readOnly bool
	err := b.link.conn.QueryRow(statement, sqlCanary, b.config.Schema, b.channel, canaryPrefix+b.nonce).
		Scan(&b.answered, &b.jobs, &usage, &readOnly)
	if err != nil {
		return fmt.Errorf("send canary: %w", err)
	}
	if b.readOnly = b.link.saysReadOnly(); readOnly {
		return errReadOnly
	}
	b.echoBefore = time.Now().Add(b.config.EchoTimeout)
	b.heedQueue(usage)
	return nil
}

// nextCanary is when the next canary is due. It is sooner where there is something to look at: whether the queue of
// notifications fills or is drained, or whether there is a jobs table by now.
func (b *bell) nextCanary() time.Time {
	interval := b.config.CanaryInterval
	if b.queueUsed.Load() || b.fullQueue || b.jobs == 0 {
		interval = min(interval, usedInterval)
	}
	return b.canaryAt.Add(interval)
}

// nextDue is when there is something to do without being nudged.
func (b *bell) nextDue() time.Time {
	due := b.nextCanary()
	if b.hearing.missing(b.nonce) {
		due = b.echoBefore
	}
	var answerBefore time.Time
	if b.asked.pending() {
		answerBefore = b.asked.before
	}
	for _, other := range []time.Time{b.pingAt, answerBefore, b.lockAt, b.sleepers.next(b.slumber.isWanted())} {
		if !other.IsZero() && other.Before(due) {
			due = other
		}
	}
	return due
}

// heedQueue leaves S when the server's queue of notifications fills up: inserts then are silent and succeed, instead of
// failing when it is full.
func (b *bell) heedQueue(usage float64) {
	full, changed := b.slumber.queued(usage)
	b.fullQueue = full
	b.metrics.queueUsage.Set(usage)
	switch {
	case !changed:
	case full:
		b.logger.Warn().Float64("usage", usage).Str("cause", "a session that LISTENs keeps a transaction open").Str("mend", mendQueue).
			Msg("queue of notifications fills up: polling instead")
	default:
		b.logger.Info().Float64("usage", usage).Msg("queue of notifications is drained")
	}
}
