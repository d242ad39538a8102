//go:build !linux

package dispatch

import "time"

var started = time.Now()

// sinceBoot may stand still while the machine is suspended: then the fence alone, and the next heartbeat, tell of a lost lease.
func sinceBoot() time.Duration { return time.Since(started) }
