package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyWithin   = 60 * time.Second
	stoppedWithin = 40 * time.Second // the grace, and some
	// restartAfter is how long a supervisor waits before it starts a sidecar again.
	restartAfter = time.Second
)

// Sidecar is a place for a pgbell process: one runs there after the other.
type Sidecar struct {
	world  *World
	number int

	mu      sync.Mutex
	current *process
	addr    string // of its health and metrics
	starts  int
}

// Name of the process that runs there now, or ran there last.
func (s *Sidecar) Name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return ""
	}
	return s.current.name
}

// PID of that process.
func (s *Sidecar) PID() int { return s.process().pid() }

// Addr is where that process serves health and metrics.
func (s *Sidecar) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

func (s *Sidecar) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Start starts a process there, and doesn't wait until it is ready.
func (s *Sidecar) Start(ctx context.Context) error {
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	s.addr = addr
	name := fmt.Sprintf("sidecar%d.%d", s.number, s.starts)
	path := filepath.Join(s.world.folder, name+".yaml")
	if err := os.WriteFile(path, []byte(s.config(name)), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	env := append([]string{"DATABASE_URL=" + s.world.databaseURL(s.number)}, s.world.Scenario.Env...)
	s.current, err = startProcess(s.world.history, s.world.folder, name, []string{s.world.program, "run", "--config", path}, env)
	return err
}

// config has defaults but for the handlers: retries must come within the scenario.
func (s *Sidecar) config(name string) string {
	const backoff = "backoff: {base: 500ms, factor: 1.5, cap: 5s}"
	web := fmt.Sprintf("webhook: {url: 'http://%s/%s'}", s.world.appAddr, name)
	var text strings.Builder
	fmt.Fprintf(&text, "http: {addr: '%s'}\n%s\nhandlers:\n", s.addr, s.world.Scenario.Settings)
	for _, each := range []string{typeWeb, typeSlow, typeFlaky, typeRefused, typePoison} {
		fmt.Fprintf(&text, "  %s: {%s, %s}\n", each, web, backoff)
	}
	quoted := make([]string, 0, len(s.world.config.Program)+3)
	for _, word := range append(append([]string{}, s.world.config.Program...), "record", s.world.folder, name) {
		quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", "''")+"'")
	}
	fmt.Fprintf(&text, "  %s: {subprocess: {command: [%s]}, %s}\n", typeScript, strings.Join(quoted, ", "), backoff)
	return text.String()
}

// AwaitReady returns when the process says that it is ready.
func (s *Sidecar) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	p := s.process()
	for !s.isReady(ctx) {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: see %s", p.name, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s isn't ready: %w", p.name, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return s.world.history.Note(Event{Kind: Ready, Process: p.name})
}

func (s *Sidecar) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr()+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// Kill ends the process by SIGKILL, and returns when it is gone.
func (s *Sidecar) Kill() error {
	p := s.process()
	return errors.Join(p.signal(syscall.SIGKILL), p.await(stoppedWithin))
}

// Signal sends the process a signal.
func (s *Sidecar) Signal(signal syscall.Signal) error { return s.process().signal(signal) }

// Stop asks the process to end by SIGTERM, and returns when it has: with an error if it didn't end well.
func (s *Sidecar) Stop() error {
	p := s.process()
	if err := errors.Join(p.signal(syscall.SIGTERM), p.await(stoppedWithin)); err != nil {
		return err
	}
	if code := p.command.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %s after SIGTERM: see %s", p.name, p.command.ProcessState, p.log)
	}
	return nil
}

func (s *Sidecar) restart(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.AwaitReady(ctx)
}

// supervise starts the sidecar again whenever it has ended without being asked to, until ctx is done.
func (s *Sidecar) supervise(ctx context.Context) error {
	for {
		p := s.process()
		select {
		case <-ctx.Done():
			return nil
		case <-p.ended:
		}
		if pause(ctx, restartAfter) != nil {
			return nil
		}
		if err := s.Start(ctx); err != nil {
			return err
		}
		if err := s.AwaitReady(ctx); err != nil && ctx.Err() == nil && s.process().running() {
			return err
		}
	}
}

func freeAddr(ctx context.Context) (string, error) {
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return socket.Addr().String(), socket.Close()
}
