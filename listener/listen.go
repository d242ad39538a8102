package listener

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"
)

var errListenStuck = errors.New("LISTEN did not return in time")

// ear is what pgxlisten drives: its methods are called by the goroutine of keepListening alone, and never wait but for
// the database, while there is no connection to read.
type ear struct {
	*Listener
	pause backoff

	current *link
	guard   *time.Timer // cuts current unless LISTEN returns
}

// keepListening keeps the LISTEN connection until ctx is done.
func (l *Listener) keepListening(ctx context.Context) {
	e := &ear{Listener: l, pause: backoff{min: l.config.ReconnectMin, max: l.config.ReconnectMax}}
	loop := &pgxlisten.Listener{
		Connect:  e.connect,
		LogError: e.fail,
		// The pause is in Connect, where it can grow, and end early.
		ReconnectDelay: -1,
	}
	loop.Handle(l.channel, e)
	// It returns only when ctx is done.
	_ = loop.Listen(ctx)
	e.discard(ctx)
}

func (e *ear) connect(ctx context.Context) (*pgx.Conn, error) {
	e.discard(ctx)
	if e.pause.begun {
		e.metrics.reconnects.WithLabelValues(roleListener).Inc()
	}
	if err := e.pause.wait(ctx, e.hearing.calms()); err != nil {
		return nil, err
	}
	connection, err := e.Listener.connect(ctx, roleListener)
	if err != nil {
		return nil, err
	}
	if err := e.refusePooler(ctx, connection); err != nil {
		connection.discard(ctx)
		return nil, err
	}
	e.current = connection
	e.guard = time.AfterFunc(e.config.EchoTimeout, func() { connection.giveUp(errListenStuck) })
	e.setListenOn(connection)
	return connection.conn, nil
}

func (e *ear) discard(ctx context.Context) {
	if e.current == nil {
		return
	}
	e.guard.Stop()
	e.setListenOn(nil)
	e.current.discard(ctx)
	e.current = nil
}

// fail is called once for each connection that could not be had, or is gone.
func (e *ear) fail(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case e.current == nil:
		e.hearing.listenerLost(causeOfConnect(roleListener, err))
	case errors.Is(e.current.givenUp(), errListenStuck):
		e.hearing.listenerLost(causeOfConnect(roleListener, errListenStuck))
	case e.current.givenUp() != nil:
		e.hearing.listenerLost(causeOfLoss(roleListener, e.current.givenUp()))
	case e.current.wasCut():
		e.hearing.listenerCut() // maybe while LISTEN was under way
	case !e.current.listens.Load():
		e.hearing.listenerLost(causeOfConnect(roleListener, err))
	default:
		e.hearing.listenerLost(causeOfLoss(roleListener, err))
	}
	e.bell.now()
}

// HandleBacklog implements pgxlisten.BacklogHandler: LISTEN has returned.
func (e *ear) HandleBacklog(context.Context, string, *pgx.Conn) error {
	if !e.guard.Stop() {
		return nil // too late: it is being cut
	}
	e.current.listens.Store(true)
	e.hearing.listen()
	e.bell.now()
	return nil
}

// HandleNotification implements pgxlisten.Handler.
func (e *ear) HandleNotification(_ context.Context, notification *pgconn.Notification, _ *pgx.Conn) error {
	switch kind, nonce := parsePayload(notification.Payload); kind {
	case payloadRing:
		e.metrics.rings.Inc()
		offer(e.rings)
		e.slumber.rang(time.Now())
		e.useQueue()
	case payloadCancel:
		e.metrics.cancels.Inc()
		offer(e.cancels)
		e.useQueue()
	case payloadCanary:
		if began := e.hearing.echo(nonce, time.Now()); began {
			e.bell.now()
		}
	default:
		e.metrics.unknown.Inc()
		e.useQueue()
	}
	return nil
}

// useQueue brings the next canary forward, once: the queue of notifications is in use.
func (e *ear) useQueue() {
	if !e.queueUsed.Load() && !e.queueUsed.Swap(true) {
		e.bell.now()
	}
}

func (l *Listener) setListenOn(connection *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listenOn = connection
}

// cutListenOn ends the LISTEN connection, if there is one, so that it is made anew.
func (l *Listener) cutListenOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listenOn != nil {
		l.listenOn.cut()
	}
}
