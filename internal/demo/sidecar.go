package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/sqlfunc"
	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/dispatch/webhook"
	"github.com/pgbell/pgbell/listener"
)

const (
	// grace for running jobs when the demo ends: none of them takes long.
	grace        = 2 * time.Second
	retention    = time.Hour
	readyTimeout = 15 * time.Second
)

// sidecar is pgbell in this process, put together as `pgbell run` does it: a listener, a dispatcher and the guard of its subprocesses.
type sidecar struct {
	jobs, functions *pgxpool.Pool
	listener        *listener.Listener
	dispatcher      *dispatch.Dispatcher
	guard           *subprocess.Guard
	webhook         *webhook.Handler
}

// newSidecar connects nothing yet. Run must be called.
func newSidecar(ctx context.Context, database database, app *application, journal *journal, logger zerolog.Logger) (_ *sidecar, err error) {
	s := &sidecar{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.jobs, err = newPool(ctx, database.url, 10); err != nil {
		return nil, err
	}
	if s.functions, err = newPool(ctx, database.url, 10); err != nil {
		return nil, err
	}
	if s.listener, err = listener.New(listener.Config{URL: database.url, Schema: database.schema, Logger: logger}); err != nil {
		return nil, err
	}
	if s.guard, err = subprocess.NewGuard(subprocess.GuardConfig{Logger: logger}); err != nil {
		return nil, err
	}
	types, err := s.types(database, app, journal)
	if err != nil {
		return nil, err
	}
	s.dispatcher, err = dispatch.New(s.jobs, dispatch.Config{
		Schema: database.schema, Types: types, Bell: s.listener, Presence: s.listener, Logger: logger, Name: "pgbell demo",
		ShutdownGrace: grace, Retention: dispatch.Retention{Completed: retention, Failed: retention, Cancelled: retention},
	})
	return s, err
}

func newPool(ctx context.Context, url string, connections int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errBadURL
	}
	config.MaxConns = connections
	return pgxpool.NewWithConfig(ctx, config)
}

func (s *sidecar) types(database database, app *application, journal *journal) (map[string]dispatch.Type, error) {
	var err error
	if s.webhook, err = webhook.New(webhook.Config{URL: app.url(), Secrets: []string{app.webhookSecret()}}); err != nil {
		return nil, err
	}
	script, err := subprocess.New(subprocess.Config{Command: []string{"/bin/sh", app.script}, Guard: s.guard})
	if err != nil {
		return nil, err
	}
	function, err := sqlfunc.New(s.functions, sqlfunc.Config{Function: database.schema + ".demo_book_payment"})
	if err != nil {
		return nil, err
	}
	backoff := dispatch.Backoff{Base: backoffBase, Factor: backoffFactor, Jitter: backoffJitter}
	watch := func(handler dispatch.Handler, w watched) dispatch.Type {
		w.Handler, w.journal, w.ownHost = handler, journal, database.own
		return dispatch.Type{Handler: w, Timeout: 30 * time.Second, Backoff: backoff}
	}
	return map[string]dispatch.Type{
		typeMail:             watch(s.webhook, watched{stream: true}),
		typeImage:            watch(script, watched{stream: true}),
		typePayment:          watch(function, watched{stream: true, started: app.ledger.started}),
		typeIndex:            watch(app.updateSearch(), watched{stream: true}),
		dispatch.DefaultType: watch(anything(), watched{}),
	}, nil
}

// run works until ctx is done, and returns when all has ended and all connections are closed.
func (s *sidecar) run(ctx context.Context) error {
	defer s.close()
	dispatching, stopDispatching := context.WithCancel(ctx)
	defer stopDispatching()
	// The guard and the listener serve the dispatcher until it has ended.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var services sync.WaitGroup
	var listenErr, guardErr error
	services.Go(func() {
		defer stopDispatching()
		listenErr = s.listener.Run(serving)
	})
	services.Go(func() {
		defer stopDispatching()
		guardErr = s.guard.Run(serving)
	})
	err := s.dispatcher.Run(dispatching)
	stopServing()
	services.Wait()
	return errors.Join(err, listenErr, guardErr)
}

func (s *sidecar) close() {
	for _, pool := range []*pgxpool.Pool{s.jobs, s.functions} {
		if pool != nil {
			pool.Close()
		}
	}
	if s.webhook != nil {
		s.webhook.Close()
	}
}

// awaitReady returns when rings are heard and the first claim was made.
func (s *sidecar) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errors.New("it took too long"))
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ready := s.dispatcher.Ready(); ; {
		select {
		case <-ctx.Done():
			if health := s.listener.Health(); !health.Heard {
				return fmt.Errorf("wait for the listener: %s (%s): %w", health.Cause, health.Mend, context.Cause(ctx))
			}
			return fmt.Errorf("wait for the dispatcher: %w", context.Cause(ctx))
		case <-ready:
			ready = nil
		case <-tick.C:
		}
		if ready == nil && !s.listener.Deaf() {
			return nil
		}
	}
}
