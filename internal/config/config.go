package config

import (
	"time"
)

// Config is the effective configuration. All defaults are filled in.
type Config struct {
	Database      Database
	Concurrency   int
	HTTP          HTTP
	Log           Log
	Poll          time.Duration
	LeaseTime     time.Duration
	DeadAfter     time.Duration
	ManualLease   time.Duration
	ShutdownGrace time.Duration
	Retention     Retention
	// Handlers by job type; "*" is for the types without their own. Nil after Load with DatabaseOnly.
	Handlers map[string]Handler

	// Path of the file that was read, or "".
	Path string
	// Warnings are things that are likely mistakes and yet no reason to stop, for people.
	Warnings []string

	origins map[string]Origin
	places  map[string]place
}

// Database says where the jobs are.
type Database struct {
	// URL for the work. Empty: the PG* variables of libpq say it.
	URL string
	// ListenURL of a direct connection, for the listener, where URL leads through a transaction pooler. Empty: URL.
	ListenURL string
	// Schema that pgbell is installed in.
	Schema string
	// MaxConns is how many connections a sidecar has at most.
	MaxConns int
}

// HTTP says where health and metrics are served.
type HTTP struct {
	// Addr is host:port, or "off".
	Addr string
}

// Log says what is logged, and how.
type Log struct {
	// Level is trace, debug, info, warn or error.
	Level string
	// Format is auto, json or console.
	Format string
}

// Retention says how long finished jobs are kept. Negative: for ever; 0: until the next time that old ones are deleted.
type Retention struct {
	Completed, Failed, Cancelled time.Duration
}

// Handler says how the jobs of one type run. Exactly one of Webhook, Subprocess and SQLFunc is set.
type Handler struct {
	Webhook    *Webhook
	Subprocess *Subprocess
	SQLFunc    *SQLFunc

	Concurrency int
	Timeout     time.Duration
	Backoff     Backoff
	// MaxPayload in bytes.
	MaxPayload int
}

// Backoff between attempts: Base x Factor^(n-1), at most Cap, spread by Jitter.
type Backoff struct {
	Base   time.Duration
	Factor float64
	Cap    time.Duration
	Jitter float64
}

// Webhook runs jobs by an HTTP request.
type Webhook struct {
	URL string
	// Secrets that the request is signed with, the newest first; from secret or from the lines of the file secret_file.
	Secrets []string
	// Headers are sent with every request.
	Headers map[string]string
	// AllowHeld makes the answer 202 mean that the job is settled later, by complete_job or fail_job.
	AllowHeld bool
}

// Subprocess runs jobs by a child process.
type Subprocess struct {
	Command []string
	Dir     string
	Env     map[string]string
}

// SQLFunc runs jobs by a function in the database.
type SQLFunc struct {
	Function string
}

// DefaultHTTPAddr is where health and metrics are served unless configured. When its port is busy, another one is taken.
const DefaultHTTPAddr = "127.0.0.1:9797"

const day = 24 * time.Hour

// defaults returns the configuration of an empty file.
func defaults() *Config {
	return &Config{
		Database:      Database{Schema: "public", MaxConns: 30},
		Concurrency:   100,
		HTTP:          HTTP{Addr: DefaultHTTPAddr},
		Log:           Log{Level: "info", Format: "auto"},
		Poll:          30 * time.Second,
		LeaseTime:     15 * time.Second,
		DeadAfter:     1500 * time.Millisecond,
		ManualLease:   15 * time.Minute,
		ShutdownGrace: 30 * time.Second,
		Retention:     Retention{Completed: 7 * day, Failed: 30 * day, Cancelled: 7 * day},
		origins:       map[string]Origin{},
		places:        map[string]place{},
	}
}

// LeastConns is the least MaxConns: two for the listener, two for probes, four for the work, one for SQL functions.
const LeastConns = 9

// sqlFuncConcurrency is the default of such handlers: each job that runs has a database connection to itself.
const sqlFuncConcurrency = 8

// defaultHandler has what a handler gets that doesn't say otherwise; its concurrency depends on the total one.
func defaultHandler() Handler {
	return Handler{
		Timeout:    5 * time.Minute,
		Backoff:    Backoff{Base: 30 * time.Second, Factor: 4, Cap: day, Jitter: 0.1},
		MaxPayload: 4 << 20,
	}
}

// Origin says where a value came from.
type Origin struct {
	// Source is SourceDefault, SourceFile, SourceEnv or SourceFlag.
	Source Source
	// Where is file:line:column, the variable's name, or the flag's.
	Where string
}

// Source is one of the places that a value can come from; a later one wins over an earlier one.
type Source int

// The places, in order.
const (
	SourceDefault Source = iota
	SourceFile
	SourceEnv
	SourceFlag
)

func (s Source) String() string {
	return [...]string{"default", "file", "env", "flag"}[s]
}

func (o Origin) String() string {
	if o.Where == "" {
		return o.Source.String()
	}
	return o.Source.String() + " " + o.Where
}

// Origin of the value of a key, such as "http.addr" or "handlers.send_email.webhook.url".
func (c *Config) Origin(key string) Origin { return c.origins[key] }
