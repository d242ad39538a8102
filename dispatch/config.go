package dispatch

import (
	"time"

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

// Retention says how long finished jobs are kept, by their end. Negative keeps them for ever.
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
	// Defaults to Config.Concurrency.
	Concurrency int

	// Timeout of an attempt, unless the job has its own. Defaults to 5 min.
	Timeout time.Duration

	// Backoff between attempts.
	Backoff Backoff

	// MaxPayload is the biggest payload, in bytes of JSON text, that is handed to the handler; jobs with more fail for
	// good. Defaults to 4 MiB.
	MaxPayload int
}

// Backoff is the delay before attempt n+1: Base x Factor^(n-1), at most Cap, spread by Jitter.
type Backoff struct {
	// Base is the delay after the first attempt. Defaults to 30 s.
	Base time.Duration
	// Factor by which it grows, at least 1. Defaults to 4.
	Factor float64
	// Cap is the longest delay. Defaults to 24 h.
	Cap time.Duration
	// Jitter spreads the delay evenly over ±Jitter of itself, 0 to 1; negative means none. Defaults to 0.1.
	Jitter float64
}
