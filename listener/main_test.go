package listener_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

var (
	_ dispatch.Bell     = (*listener.Listener)(nil)
	_ dispatch.Presence = (*listener.Listener)(nil)
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if described := os.Getenv(stressSidecarEnv); described != "" {
		os.Exit(stressSidecarMain(described))
	}
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// running is a Listener under test.
type running struct {
	*listener.Listener
	log *log
}

// start runs a Listener until the test ends. Tests that don't set them get short times, to be quick.
func start(t *testing.T, config listener.Config) *running {
	t.Helper()
	output := &log{}
	config.Logger = zerolog.New(output)
	if config.CanaryInterval == 0 {
		config.CanaryInterval = 500 * time.Millisecond
	}
	if config.ReconnectMax == 0 {
		config.ReconnectMin, config.ReconnectMax = 20*time.Millisecond, 200*time.Millisecond
	}
	l, err := listener.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("run did not return")
		}
		if t.Failed() {
			t.Logf("log of the listener:\n%s", output)
		}
	})
	return &running{l, output}
}

func (r *running) awaitHeard(t *testing.T) {
	t.Helper()
	await(t, "the bell is heard", func() bool { return !r.Deaf() })
}

// nothing is a recheck that finds nothing.
func nothing(context.Context, bool) (bool, error) { return false, nil }

// sleep falls asleep: inserts ring from then on.
func (r *running) sleep(t *testing.T) {
	t.Helper()
	r.awaitHeard(t)
	asleep, err := r.Sleep(t.Context(), nothing)
	if !asleep || err != nil || !r.Health().Asleep {
		t.Fatalf("Sleep = %v, %v, health %+v", asleep, err, r.Health())
	}
	select { // for having become heard
	case <-r.Rings():
	default:
	}
}

func (r *running) awaitDeaf(t *testing.T) {
	t.Helper()
	await(t, "the listener is deaf", r.Deaf)
}

// announce announces worker until the test ends or the returned function is called.
func (r *running) announce(t *testing.T, worker int32) (withdraw func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Announce(ctx, worker) }()
	var once sync.Once
	withdraw = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("announce: %v", err)
			}
		})
	}
	t.Cleanup(withdraw)
	return withdraw
}

func (r *running) awaitRing(t *testing.T) {
	t.Helper()
	select {
	case <-r.Rings():
	case <-time.After(patience):
		t.Fatal("no ring came")
	}
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// with adds a parameter to a database's URL.
func with(t *testing.T, databaseURL, name, value string) string {
	t.Helper()
	parsed, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	parameters := parsed.Query()
	parameters.Set(name, value)
	parsed.RawQuery = parameters.Encode()
	return parsed.String()
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

const (
	insertJob = `INSERT INTO jobs (type) VALUES ('x')`
	// As the reaper reads it.
	countPresence = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND mode = 'ExclusiveLock'
	  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	  AND classid = 'jobs'::regclass AND objid = $1::int4::oid`
	countAdvisory = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
	  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	terminate = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`
)

// log keeps what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines returns the lines at a level.
func (l *log) lines(t *testing.T, level string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if fields["level"] == level {
			found = append(found, fields)
		}
	}
	return found
}
