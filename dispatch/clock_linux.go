package dispatch

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is a clock that goes on while the machine is suspended, as a lease does. Go's own monotonic clock stands still then.
func sinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it fails for a clock that Linux doesn't know; this one is of 2011
	return time.Duration(now.Nano())
}
