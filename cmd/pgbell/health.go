package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/listener"
)

const (
	pingTimeout = time.Second
	// pingFor is how long an answer of the database holds for probes.
	pingFor = 2 * time.Second
)

// health answers the probes.
type health struct {
	ping  func(context.Context) error
	ready <-chan struct{}
	bell  func() listener.Health
	// failing are the statements that fail at present.
	failing func() []dispatch.Failure
	// stopping: no more jobs are claimed.
	stopping atomic.Bool

	mu       sync.Mutex
	pinged   time.Time
	pingFail error
}

func newHealth(pool *pgxpool.Pool, dispatcher *dispatch.Dispatcher, bell *listener.Listener) *health {
	return &health{ping: pinging(pool), ready: dispatcher.Ready(), bell: bell.Health, failing: dispatcher.Failing}
}

var errReadOnly = errors.New("it is read-only: a standby, or a primary that was demoted")

// pinging asks whether jobs can be claimed, as far as that costs no transaction. A server that was demoted keeps its connections;
// new ones may lead to its successor.
func pinging(pool *pgxpool.Pool) func(context.Context) error {
	return func(ctx context.Context) error {
		err := pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return writable(ctx, conn) })
		if errors.Is(err, errReadOnly) {
			pool.Reset()
			err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return writable(ctx, conn) })
		}
		return err
	}
}

// writable: the server says of itself that it is read-only. A pooler may say so of another one, so that is made sure of.
func writable(ctx context.Context, conn *pgxpool.Conn) error {
	if err := conn.Ping(ctx); err != nil {
		return err
	}
	if says := conn.Conn().PgConn().ParameterStatus; says("in_hot_standby") != "on" && says("default_transaction_read_only") != "on" {
		return nil
	}
	var readOnly bool
	if err := conn.QueryRow(ctx, sqlReadOnly).Scan(&readOnly); err != nil {
		return err
	}
	if readOnly {
		return errReadOnly
	}
	return nil
}

// live: the process answers. A database that is away is no reason to restart it.
func (h *health) live(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, map[string]any{"status": "ok"})
}

// serveReady: jobs are being claimed. A deaf bell only makes it slower, and is told, as are other statements that fail.
func (h *health) serveReady(w http.ResponseWriter, request *http.Request) {
	heard := h.bell()
	body := map[string]any{"status": "ready", "bell": map[string]any{"heard": heard.Heard, "since": heard.Since.UTC(), "cause": heard.Cause,
		"mend": heard.Mend, "present": heard.Present, "asleep": heard.Asleep, "held_up_by": heard.HeldUpBy,
		"queue_full": heard.QueueFull}}
	failing := []string{}
	claims := true
	for _, failure := range h.failing() {
		failing = append(failing, failure.String())
		claims = claims && failure.Doing != dispatch.DoingClaim
	}
	body["failing"] = failing
	code := http.StatusOK
	refuse := func(why string) {
		code, body["status"], body["reason"] = http.StatusServiceUnavailable, "not ready", why
	}
	select {
	case <-h.ready:
		if h.stopping.Load() {
			refuse("pgbell is stopping")
		} else if err := h.database(request.Context()); errors.Is(err, errReadOnly) {
			refuse("the database can't be written to: " + err.Error())
		} else if err != nil {
			refuse("the database doesn't answer: " + diagnose(&connectError{err: err}).err.Error())
		} else if !claims {
			refuse("jobs can't be claimed")
		}
	default:
		refuse("no claim was made yet")
	}
	h.answer(w, code, body)
}

// database pings, at most once in pingFor, however many ask.
func (h *health) database(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.pinged) < pingFor {
		return h.pingFail
	}
	// Who asks may go away: the answer is for the next one too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
	defer cancel()
	h.pingFail = h.ping(ctx)
	h.pinged = time.Now()
	return h.pingFail
}

func (h *health) answer(w http.ResponseWriter, code int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = writeJSON(w, body)
}
