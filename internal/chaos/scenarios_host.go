package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pgbell/pgbell/internal/postgres"
)

var hostScenarios = []Scenario{
	{
		Name: "disk", Title: "the disk of Postgres is full for a while",
		Postgres: postgres.Options{Durable: true, Settings: map[string]string{"max_wal_size": "64MB", "min_wal_size": "32MB"}},
		Host:     mountDisk, Strike: fillDisk, Allowed: Allowed{Late: 30 * time.Second, Resume: 3 * time.Second},
	},
	{
		Name: "clock", Title: "the clock of Postgres is stepped by an hour, forward and back",
		Host: fakeClock, Prepare: setForwardAtLast, Strike: stepClock,
		// What was due by a clock that was then set back is due by it again when that has caught up.
		Allowed: Allowed{Late: 10 * time.Minute},
	},
}

const (
	// diskSize holds a new database, and what a scenario adds to it.
	diskSize  = "192m"
	diskPlace = "disk"
)

// mountDisk has the server's files on a small tmpfs.
func mountDisk(ctx context.Context, w *World) error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return Skip{"a small tmpfs for the data folder takes root on Linux"}
	}
	place := filepath.Join(w.folder, diskPlace)
	if err := os.Mkdir(place, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := openFolder(w.folder); err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", "mode=0755,size="+diskSize, "tmpfs", place).CombinedOutput(); err != nil {
		return Skip{fmt.Sprintf("a small tmpfs can't be mounted: %s", strings.TrimSpace(string(output)))}
	}
	w.AtEnd(func() error {
		if output, err := exec.CommandContext(context.WithoutCancel(ctx), "umount", place).CombinedOutput(); err != nil {
			return fmt.Errorf("unmount %s: %w: %s", place, err, output)
		}
		return nil
	})
	w.Scenario.Postgres.Dir = place
	return nil
}

// fillDisk fills it until nothing more goes in. Postgres may bear that, or end: then it is started again, as a supervisor does.
func fillDisk(ctx context.Context, w *World) error {
	ballast := filepath.Join(w.folder, diskPlace, "ballast")
	until := time.Now().Add(w.Between(2*time.Second, 8*time.Second))
	return w.hold(ctx, Fault{What: "disk full", Aftermath: comeBack, FromEnd: true}, func() error {
		for time.Now().Before(until) {
			if err := fill(ballast); err != nil {
				return err
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil { // then Postgres may have given something back
				return err
			}
		}
		return nil
	}, 0, func() error { return errors.Join(os.Remove(ballast), w.awaitServer(ctx)) })
}

// fill appends to a file until there is no room.
func fill(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	defer func() { _ = file.Close() }() // what is in it doesn't matter
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 16
		}
	}
	return nil
}

// awaitServer returns when the server accepts connections, started again if it has ended.
func (w *World) awaitServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if w.Server.Ended() {
			return w.Server.Launch(ctx)
		}
		_, closed, err := w.control(ctx)
		if err == nil {
			closed()
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for postgres: %w", err)
		}
	}
}

// fakeClock has the server's clock in the scenario's hand.
func fakeClock(_ context.Context, w *World) error {
	if err := openFolder(w.folder); err != nil {
		return err
	}
	clock, err := postgres.NewClock(w.folder)
	if errors.Is(err, postgres.ErrNoFakeClock) {
		return Skip{err.Error()}
	}
	if err != nil {
		return err
	}
	w.clock = clock
	w.Scenario.Postgres.Env = clock.Env()
	return nil
}

// setForwardAtLast makes all that waits for a clock that was set back due in the end.
func setForwardAtLast(_ context.Context, w *World) error {
	w.Cleanup(func() error { return w.setClock(3 * time.Hour) })
	return nil
}

func stepClock(ctx context.Context, w *World) error {
	offsets := []time.Duration{-time.Hour, 0, time.Hour}
	offset := w.offset
	for offset == w.offset {
		offset = offsets[w.Random.IntN(len(offsets))]
	}
	fault := Fault{What: fmt.Sprintf("clock set from %s to %s", w.offset, offset), Harmless: true}
	return w.hold(ctx, fault, func() error { return w.setClock(offset) }, 0, nothing)
}

func (w *World) setClock(offset time.Duration) error {
	if err := w.clock.Set(offset); err != nil {
		return err
	}
	w.offset = offset
	return w.SetClock(offset)
}

// openFolder lets the server's user through.
func openFolder(path string) error {
	if err := os.Chmod(path, 0o711); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	return nil
}
