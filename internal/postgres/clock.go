package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// ErrNoFakeClock is returned by NewClock where libfaketime isn't installed.
var ErrNoFakeClock = errors.New("libfaketime isn't installed (Debian: apt-get install libfaketime)")

// Clock is the wall clock of a server that is started with its Env, and can be stepped. Timers and the caller's own clock
// are not touched. It works by libfaketime, on Linux.
type Clock struct{ file, library string }

// NewClock keeps the clock's offset in a file in a folder that the server's user can get to.
func NewClock(folder string) (*Clock, error) {
	found, _ := filepath.Glob("/usr/lib*/*/faketime/libfaketime.so.1") // the only error is a bad pattern
	if len(found) == 0 {
		found, _ = filepath.Glob("/usr/lib*/faketime/libfaketime.so.1")
	}
	if len(found) == 0 {
		return nil, ErrNoFakeClock
	}
	c := &Clock{file: filepath.Join(folder, "clock"), library: found[0]}
	return c, c.Set(0)
}

// Env for Options.
func (c *Clock) Env() []string {
	return []string{
		"LD_PRELOAD=" + c.library,
		"FAKETIME_TIMESTAMP_FILE=" + c.file,
		"FAKETIME_NO_CACHE=1", // all processes step at once
		"FAKETIME_DONT_FAKE_MONOTONIC=1",
	}
}

// Set steps the clock to be off the host's by so much, in whole seconds.
func (c *Clock) Set(offset time.Duration) error {
	// Renamed into place: the server reads it whenever it looks at its clock.
	next := c.file + ".new"
	text := strconv.FormatInt(int64(offset/time.Second), 10)
	if offset >= 0 {
		text = "+" + text
	}
	if err := os.WriteFile(next, []byte(text+"\n"), 0o600); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Chmod(next, 0o644); err != nil { // whatever the umask is
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Rename(next, c.file); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
