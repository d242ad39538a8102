package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"
)

// Application is the process that webhooks go to.
type Application struct {
	world   *World
	current *process
	starts  int
}

// Name of the process.
func (a *Application) Name() string { return a.current.name }

// Start starts it, and returns when it accepts connections.
func (a *Application) Start(ctx context.Context) error {
	w := a.world
	a.starts++
	program := append(append([]string{}, w.config.Program...), "app", w.folder, w.appAddr)
	var err error
	if a.current, err = startProcess(w.history, w.folder, fmt.Sprintf("app.%d", a.starts), program, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.appAddr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-a.current.ended:
			return fmt.Errorf("the application ended at once: see %s", a.current.log)
		case <-ctx.Done():
			return fmt.Errorf("the application doesn't listen: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Kill ends it by SIGKILL.
func (a *Application) Kill() error {
	if a.current == nil {
		return nil
	}
	return errors.Join(a.current.signal(syscall.SIGKILL), a.current.await(stoppedWithin))
}

func (w *World) historyPath() string { return filepath.Join(w.folder, historyFile) }
