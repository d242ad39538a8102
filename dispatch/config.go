package dispatch

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// DefaultType is the key in Config.Types of the handler for types without their own.
const DefaultType = "*"

// Config configures a Dispatcher. The zero value of each field stands for its default.
type Config struct {
	// Schema that pgbell is installed in. Defaults to "public".
	Schema string

	// Types maps a job type, or DefaultType, to how its jobs run. Types that it doesn't name stay pending, unless there is
	// a DefaultType. At least one is required.
	Types map[string]Type

	// Concurrency is how many jobs run at once in this process, over all types. Defaults to 100.
	Concurrency int

	// Bell wakes the Dispatcher. Nil means polling alone, at PollDeaf.
	Bell Bell

	// Presence makes crashes of this process visible soon. Nil means that heartbeats alone do.
	Presence Presence

	// Poll is how often to look for work that no ring announced, while the bell is heard. Defaults to 30 s.
	Poll time.Duration

	// PollDeaf is the same while there is no bell or it is deaf. Defaults to 1 s.
	PollDeaf time.Duration

	// LeaseTime is how long this process may be out of touch with the database before its jobs are given to others; it
	// heartbeats three times as often. Defaults to 15 s.
	LeaseTime time.Duration

	// DeadAfter is how long this process's presence must be seen missing, with no heartbeat either, before it counts as
	// dead. Defaults to 1.5 s.
	DeadAfter time.Duration

	// ManualLease is how long a job claimed by claim_jobs, or held after Held, is left to its holder without a
	// heartbeat_job. It is written to the database and holds for all. Defaults to 15 min.
	ManualLease time.Duration

	// ShutdownGrace is how long running jobs may go on after the context of Run is done. Defaults to 30 s.
	ShutdownGrace time.Duration

	// Retention of finished jobs.
	Retention Retention

	// Name of this process in job_workers, for people. Defaults to host name and process id.
	Name string

	// Version of the program in job_workers, for people.
	Version string

	// Logger gets state changes of the process at info, jobs at debug. Defaults to no log.
	Logger zerolog.Logger
}

// Special values of a Retention.
const (
	KeepForever time.Duration = -1
	KeepNothing time.Duration = 1 // deleted as it is settled
)

// Retention says how long finished jobs are kept, by their end: a time, KeepForever or KeepNothing.
type Retention struct {
	// Completed jobs. Defaults to 7 days.
	Completed time.Duration
	// Failed jobs. Defaults to 30 days.
	Failed time.Duration
	// Cancelled jobs. Defaults to 7 days.
	Cancelled time.Duration
}

// Type says how the jobs of one type run.
type Type struct {
	// Handler runs them. Required.
	Handler Handler

	// Concurrency is how many of them run at once in this process; under DefaultType, of all its types together.
	// Defaults to DefaultConcurrency.
	Concurrency int

	// Timeout of an attempt, unless the job has its own. Defaults to 5 min.
	Timeout time.Duration

	// Backoff between attempts.
	Backoff Backoff

	// MaxPayload is the biggest payload, in bytes of JSON text, that is handed to the handler; jobs with more fail for
	// good. Defaults to 4 MiB.
	MaxPayload int
}

// withDefaults returns a copy with all defaults filled in, or all mistakes.
func (c Config) withDefaults() (Config, error) {
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	duration := func(name string, value *time.Duration, byDefault time.Duration) {
		if *value < 0 {
			mistake("%s must not be negative, got %s", name, *value)
		}
		if *value == 0 {
			*value = byDefault
		}
	}

	if c.Schema == "" {
		c.Schema = "public"
	}
	if c.Concurrency < 0 {
		mistake("concurrency must be at least 1, got %d", c.Concurrency)
	}
	if c.Concurrency == 0 {
		c.Concurrency = 100
	}
	duration("poll", &c.Poll, 30*time.Second)
	duration("poll while deaf", &c.PollDeaf, time.Second)
	duration("lease_time", &c.LeaseTime, 15*time.Second)
	duration("dead_after", &c.DeadAfter, 1500*time.Millisecond)
	duration("manual_lease", &c.ManualLease, 15*time.Minute)
	duration("shutdown_grace", &c.ShutdownGrace, 30*time.Second)
	if c.LeaseTime > 0 && c.LeaseTime < time.Second {
		mistake("lease_time must be at least 1s, got %s: a short stall would give running jobs to others", c.LeaseTime)
	}
	if c.DeadAfter > c.LeaseTime {
		mistake("dead_after (%s) must not be longer than lease_time (%s)", c.DeadAfter, c.LeaseTime)
	}
	c.Retention = c.Retention.withDefaults()
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		c.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if c.Bell == nil {
		c.Bell = noBell{}
	}

	if len(c.Types) == 0 {
		mistake("no handlers: at least one type (or %q, for all) needs one", DefaultType)
	}
	c.Types = maps.Clone(c.Types)
	for _, name := range slices.Sorted(maps.Keys(c.Types)) {
		filled, err := c.Types[name].withDefaults(c.Concurrency, DefaultConcurrency(c.Concurrency, len(c.Types)))
		if n := utf8.RuneCountInString(name); n < 1 || n > 200 {
			err = errors.Join(err, fmt.Errorf("a type has 1 to 200 characters, this has %d", n))
		}
		if err != nil {
			mistake("handlers.%s: %w", name, err)
		}
		c.Types[name] = filled
	}
	return c, errors.Join(mistakes...)
}

func (r Retention) withDefaults() Retention {
	const day = 24 * time.Hour
	r.Completed = cmp.Or(r.Completed, 7*day)
	r.Failed = cmp.Or(r.Failed, 30*day)
	r.Cancelled = cmp.Or(r.Cancelled, 7*day)
	return r
}

// DefaultConcurrency of a type, of so many in all. Where there are several, a tenth of the slots is left to the others: jobs of one type
// that come in a flood would take all of them, and the others have to wait for their turn behind what was due before.
func DefaultConcurrency(concurrency, types int) int {
	if types < 2 {
		return concurrency
	}
	return max(concurrency-(concurrency+9)/10, 1)
}

func (t Type) withDefaults(most, concurrency int) (Type, error) {
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if t.Handler == nil {
		mistake("no handler")
	}
	if t.Concurrency < 0 {
		mistake("concurrency must be at least 1, got %d", t.Concurrency)
	}
	if t.Timeout < 0 {
		mistake("timeout must not be negative, got %s", t.Timeout)
	}
	if t.MaxPayload < 0 {
		mistake("max_payload must not be negative, got %d", t.MaxPayload)
	}
	t.Concurrency = min(cmp.Or(t.Concurrency, concurrency), most)
	t.Timeout = cmp.Or(t.Timeout, 5*time.Minute)
	t.MaxPayload = min(cmp.Or(t.MaxPayload, 4<<20), 1<<30)
	if err := t.Backoff.fill(); err != nil {
		mistakes = append(mistakes, err)
	}
	return t, errors.Join(mistakes...)
}
