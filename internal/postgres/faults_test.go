package postgres_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
)

func TestPausedServerIsSilentAndGoesOn(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc")
	}
	server := start(t, postgres.Options{})
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(context.WithoutCancel(t.Context())) }()
	select {
	case err := <-answered:
		t.Errorf("a paused server answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a paused server took %s to stop", took)
	}
}

func TestServerThatEndsByItselfIsLaunchedAgain(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{})
	if server.Ended() {
		t.Error("it has ended at once")
	}
	process, err := os.FindProcess(server.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(postgres.Immediate); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !server.Ended() && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	if err := server.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	query(t, server, "SELECT 'x'")
}

func TestClockIsStepped(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "pgbell-clock-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	clock, err := postgres.NewClock(folder)
	if errors.Is(err, postgres.ErrNoFakeClock) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	server := start(t, postgres.Options{Env: clock.Env()})
	for _, offset := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		if err := clock.Set(offset); err != nil {
			t.Fatal(err)
		}
		got, err := strconv.ParseFloat(query(t, server, "SELECT extract(epoch FROM clock_timestamp())::text"), 64)
		if err != nil {
			t.Fatal(err)
		}
		off := time.Duration(got*1e9) - time.Duration(time.Now().UnixNano()) - offset
		if off.Abs() > 10*time.Second {
			t.Errorf("stepped by %s, the server's clock is off by %s more", offset, off)
		}
	}
}
