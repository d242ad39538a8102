package listener_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/listener"
)

// stressSidecarEnv describes, as JSON, the sidecar that this process is to be.
const stressSidecarEnv = "LISTENER_TEST_SIDECAR"

// stressSidecar is a sidecar that finds work by its bell alone: its fallback poll is off.
type stressSidecar struct {
	URL, Name       string
	Types           []string
	AwakeAbove      float64
	Quiet, QuietMax time.Duration
}

// run runs it until ctx is done. heard, if not nil, gets its Listener.
func (s stressSidecar) run(ctx context.Context, logger zerolog.Logger, heard func(*listener.Listener)) error {
	poolConfig, err := pgxpool.ParseConfig(s.URL)
	if err != nil {
		return err
	}
	poolConfig.MaxConns = 6
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return err
	}
	defer pool.Close()
	bell, err := listener.New(listener.Config{
		URL: s.URL, ApplicationName: s.Name, AwakeAbove: s.AwakeAbove, Quiet: s.Quiet, QuietMax: s.QuietMax, CanaryInterval: time.Second, EchoTimeout: 2 * time.Second,
		ReconnectMin: 10 * time.Millisecond, ReconnectMax: 100 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		return err
	}
	config := dispatch.Config{
		Name: s.Name, Types: map[string]dispatch.Type{}, Concurrency: 50, Bell: bell, Presence: bell,
		Poll: 24 * time.Hour, LeaseTime: 3 * time.Second, DeadAfter: 300 * time.Millisecond, Logger: logger,
	}
	for _, name := range s.Types {
		config.Types[name] = dispatch.Type{Handler: gofunc.New(func(context.Context, dispatch.Job) (any, error) { return nil, nil })}
	}
	d, err := dispatch.New(pool, config)
	if err != nil {
		return err
	}
	if heard != nil {
		heard(bell)
	}
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	var listenErr error
	var both sync.WaitGroup
	both.Go(func() { listenErr = bell.Run(listening) })
	err = d.Run(ctx)
	stop()
	both.Wait()
	return errors.Join(err, listenErr)
}

// stressSidecarMain is a child of the test. It ends on SIGTERM, and when the test is gone.
func stressSidecarMain(described string) int {
	var s stressSidecar
	if err := json.Unmarshal([]byte(described), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(98) // orphaned
	}()
	if err := s.run(ctx, zerolog.Nop(), nil); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		return 1
	}
	return 0
}

// keepKilling runs s in a child process until ctx is done, and kills and restarts it each time that next says so. The last
// child ends in good manners.
func (s stressSidecar) keepKilling(ctx context.Context, next func() time.Duration) error {
	described, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path, err := os.Executable()
	if err != nil {
		return err
	}
	for {
		child := exec.Command(path)
		child.Env = append(os.Environ(), stressSidecarEnv+"="+string(described))
		child.Stderr = os.Stderr
		lifeline, err := child.StdinPipe()
		if err != nil {
			return err
		}
		if err := child.Start(); err != nil {
			return err
		}
		timer := time.NewTimer(next())
		select {
		case <-ctx.Done():
			timer.Stop()
			err = errors.Join(child.Process.Signal(syscall.SIGTERM), child.Wait())
			_ = lifeline.Close() // Wait has done it, too
			return err
		case <-timer.C:
			if err := child.Process.Kill(); err != nil {
				return err
			}
			_ = child.Wait() // killed
			_ = lifeline.Close()
		}
	}
}

// startStressSidecar runs s in this process until stop is called, which returns when it has ended.
func startStressSidecar(t *testing.T, s stressSidecar) (bell *running, stop func()) {
	t.Helper()
	output := &log{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	made := make(chan *listener.Listener, 1)
	go func() {
		ended <- s.run(ctx, zerolog.New(output).Level(zerolog.WarnLevel), func(l *listener.Listener) { made <- l })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("sidecar %s: %v", s.Name, err)
		}
		if t.Failed() {
			text := output.String()
			t.Logf("end of the log of %s:\n%s", s.Name, text[max(0, len(text)-2000):])
		}
	})
	t.Cleanup(stop)
	return &running{<-made, output}, stop
}
