package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// errPortInUse is a port that somebody took between the look at it and the server's start.
var errPortInUse = errors.New("the port is in use")

// launchAnywhere starts a new server on a port that is free.
func (s *Server) launchAnywhere(ctx context.Context) error {
	const tries = 10
	var err error
	for range tries {
		if s.port, err = freePort(ctx); err != nil {
			return err
		}
		if err = s.launch(ctx); !errors.Is(err, errPortInUse) {
			return err
		}
	}
	return err
}

// Launch starts the server again after Halt, on the same port with the same data, and waits until it accepts connections.
func (s *Server) Launch(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := s.launch(ctx)
		if !errors.Is(err, errPortInUse) || time.Now().After(deadline) {
			return err
		}
		// Somebody's outgoing connection may have the port for a moment.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Server) launch(ctx context.Context) error {
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	before, err := log.Stat()
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	process := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data(), "-p", strconv.Itoa(s.port))
	process.Stdout, process.Stderr = log, log
	endWithParent(process.SysProcAttr)
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(exited)
		// endWithParent means the thread that forks: this one, which lives as long as the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := process.Start()
		started <- err
		if err == nil {
			_ = process.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.process, s.exited = process, exited
	if err := s.await(ctx, before.Size()); err != nil {
		return errors.Join(err, s.Halt(Immediate))
	}
	return nil
}

// await returns when the server accepts connections. What it logs from offset on is the error if it ends instead.
func (s *Server) await(ctx context.Context, offset int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			return s.ended(offset)
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) ended(offset int64) error {
	log, err := os.ReadFile(s.Log())
	if err != nil {
		return fmt.Errorf("postgres ended at once, and its log can't be read: %w", err)
	}
	text := tail(log[min(offset, int64(len(log))):])
	if strings.Contains(text, "Address already in use") {
		return fmt.Errorf("start postgres on port %d: %w", s.port, errPortInUse)
	}
	return fmt.Errorf("postgres ended at once: %s", text)
}

// freePort looks below the ranges that systems take the ports of outgoing connections from (Linux: from 32768 on), so
// that nobody else comes by it while the server is halted.
func freePort(ctx context.Context) (int, error) {
	const first, last, tries = 15000, 32000, 100
	var err error
	for range tries {
		port := first + rand.IntN(last-first)
		var listener net.Listener
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
