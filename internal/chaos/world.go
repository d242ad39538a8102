package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/internal/proxy"
	"github.com/pgbell/pgbell/migrations"
)

const historyFile = "history.jsonl"

// World is what a scenario has: a server, sidecars, the application, and the history. Prepare and Strike use it from one
// goroutine.
type World struct {
	Scenario Scenario
	Server   *postgres.Server
	Sidecars []*Sidecar
	App      *Application
	// Random draws what strikes whom, by the seed.
	Random *rand.Rand
	// Route is the database URL of a sidecar, counted from 0; nil: the server's own. Prepare may set it.
	Route func(sidecar int) string

	// Proxies in front of the database, one for each sidecar; nil without putProxies.
	Proxies []*proxy.Proxy

	clock  *postgres.Clock // nil without fakeClock
	offset time.Duration   // that it was set to

	config  Config
	program string // that sidecars are started with
	history *History
	folder  string
	appAddr string
	started time.Time // the server

	mu       sync.Mutex
	faults   int
	cleanups []func() error
	atEnd    []func() error
}

// URL of the database, directly.
func (w *World) URL() string { return w.Server.URL("postgres") }

func (w *World) databaseURL(sidecar int) string {
	if w.Route != nil {
		return w.Route(sidecar)
	}
	return w.URL()
}

// Folder for files of the scenario; it is removed with it.
func (w *World) Folder() string { return w.folder }

// Cleanup is called when the scenario is over, before the server stops. The last one comes first.
func (w *World) Cleanup(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleanups = append(w.cleanups, f)
}

// AtEnd is called when the server has stopped. The last one comes first.
func (w *World) AtEnd(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.atEnd = append(w.atEnd, f)
}

func (w *World) cleanUp() error {
	var errs []error
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, w.cleanups[i]())
	}
	w.cleanups = nil
	return errors.Join(errs...)
}

// Begin notes that a fault begins, and End that it is over.
func (w *World) Begin(fault Fault) (*Strike, error) {
	w.mu.Lock()
	w.faults++
	fault.ID = w.faults
	w.mu.Unlock()
	return &Strike{world: w, fault: fault}, w.history.Note(Event{Kind: Struck, Fault: &fault})
}

// struck is how many faults there were.
func (w *World) struck() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults
}

// Strike is a fault that goes on.
type Strike struct {
	world *World
	fault Fault
}

// End notes that the fault is over.
func (s *Strike) End() error { return s.world.history.Note(Event{Kind: Relieved, Fault: &s.fault}) }

// SetClock notes that the database's clock is off the host's by so much, from now on.
func (w *World) SetClock(offset time.Duration) error {
	return w.history.Note(Event{Kind: Clock, Offset: offset})
}

// Any is a sidecar, drawn.
func (w *World) Any() *Sidecar { return w.Sidecars[w.Random.IntN(len(w.Sidecars))] }

// Between draws a duration.
func (w *World) Between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.Random.Int64N(int64(high-low)+1))
}

// open starts the server with pgbell in it, and the application.
func (w *World) open(ctx context.Context) (err error) {
	if w.folder, err = os.MkdirTemp("", "pgbell-chaos-"+w.Scenario.Name+"-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if w.history, err = OpenHistory(w.historyPath()); err != nil {
		return err
	}
	if w.Scenario.Host != nil {
		if err := w.Scenario.Host(ctx, w); err != nil {
			return fmt.Errorf("prepare the server: %w", err)
		}
	}
	if w.Server, err = postgres.Start(ctx, w.Scenario.Postgres); err != nil {
		return err
	}
	w.started = time.Now()
	if err := w.migrate(ctx); err != nil {
		return err
	}
	if w.appAddr, err = freeAddr(ctx); err != nil {
		return err
	}
	w.App = &Application{world: w}
	if err := w.App.Start(ctx); err != nil {
		return err
	}
	if w.Scenario.Prepare != nil {
		if err := w.Scenario.Prepare(ctx, w); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return w.startSidecars(ctx)
}

func (w *World) migrate(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.URL())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := migrations.Up(ctx, conn, migrations.Config{}); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := conn.Exec(ctx, auditSQL); err != nil {
		return fmt.Errorf("install audit: %w", err)
	}
	return nil
}

func (w *World) startSidecars(ctx context.Context) error {
	for i := range w.Scenario.Sidecars {
		sidecar := &Sidecar{world: w, number: i}
		if err := sidecar.Start(ctx); err != nil {
			return err
		}
		w.Sidecars = append(w.Sidecars, sidecar)
	}
	for _, sidecar := range w.Sidecars {
		if err := sidecar.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stopProcesses ends the sidecars in order, and then the application.
func (w *World) stopProcesses() error {
	errs := make([]error, len(w.Sidecars))
	var stopping sync.WaitGroup
	for i, sidecar := range w.Sidecars {
		stopping.Go(func() { errs[i] = sidecar.Stop() })
	}
	stopping.Wait()
	if w.App != nil {
		errs = append(errs, w.App.Kill())
	}
	return errors.Join(errs...)
}

// close ends all, whatever state it is in. The folder stays if it is to be looked at.
func (w *World) close(keep bool) error {
	errs := []error{w.cleanUp()}
	for _, sidecar := range w.Sidecars {
		errs = append(errs, sidecar.Kill())
	}
	if w.App != nil {
		errs = append(errs, w.App.Kill())
	}
	if w.Server != nil {
		errs = append(errs, w.Server.Stop())
	}
	for i := len(w.atEnd) - 1; i >= 0; i-- {
		errs = append(errs, w.atEnd[i]())
	}
	if w.history != nil {
		errs = append(errs, w.history.Close())
	}
	if !keep && w.folder != "" {
		errs = append(errs, os.RemoveAll(w.folder))
	}
	return errors.Join(errs...)
}
