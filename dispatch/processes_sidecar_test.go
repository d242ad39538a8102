package dispatch_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

// sidecarEnv describes, as the JSON of a spec, the sidecar that this process is to be.
const sidecarEnv = "DISPATCH_TEST_SIDECAR"

// spec describes a sidecar: a Dispatcher with a Listener, in a process of its own or in that of the tests.
type spec struct {
	Name  string
	URL   string
	Types map[string]int // how many of each at once
	// Heartbeats alone show that it lives.
	NoPresence  bool
	Concurrency int
	LeaseTime   time.Duration
	Grace       time.Duration
	// Record is the path of the file that it appends records to.
	Record string

	// In the tests' process alone.
	cutBell *atomic.Bool             // while set, the Listener can't connect
	lose    func(answer []byte) bool // whether an answer to the Dispatcher never arrives, and its connection is lost
}

// order is the payload of a job: what the handler is to do.
type order struct {
	// For how many milliseconds it runs.
	For int `json:"for,omitempty"`
	// BlockIn is the sidecar in which it runs until its context is done.
	BlockIn string `json:"block_in,omitempty"`
	// Insist has it report success although its context is done.
	Insist bool `json:"insist,omitempty"`
	// Kill has it kill the process that it runs in.
	Kill bool `json:"kill,omitempty"`
}

// record is a line that a sidecar notes: that it is ready, or that an attempt starts or ends.
type record struct {
	What    string        `json:"what"`
	Sidecar string        `json:"sidecar"`
	Job     string        `json:"job,omitempty"`
	Type    string        `json:"type,omitempty"`
	Attempt int           `json:"attempt,omitempty"`
	Lease   string        `json:"lease,omitempty"`
	At      time.Duration `json:"at"`
	Cause   string        `json:"cause,omitempty"`
}

const (
	ready = "ready"
	start = "start"
	end   = "end"
)

var processStart = time.Now()

// sharedNow is comparable between the processes of a test, and a step of the wall clock meanwhile doesn't move it.
func sharedNow() time.Duration {
	return time.Duration(processStart.UnixNano()) + time.Since(processStart)
}

// recorder appends records to a file, each with one write. Its methods may be called from any goroutine.
type recorder struct {
	sidecar string
	file    *os.File
}

func (r recorder) note(made record) error {
	made.Sidecar, made.At = r.sidecar, sharedNow()
	line, err := json.Marshal(made)
	if err != nil {
		return err
	}
	_, err = r.file.Write(append(line, '\n'))
	return err
}

// handle does what the job's payload orders.
func (r recorder) handle(ctx context.Context, job dispatch.Job, what order) (any, error) {
	made := record{What: start, Job: job.ID, Type: job.Type, Attempt: job.Attempt, Lease: job.Lease}
	if err := r.note(made); err != nil {
		return nil, err
	}
	if what.Kill {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if what.BlockIn == r.sidecar {
		<-ctx.Done()
	} else if what.For > 0 {
		timer := time.NewTimer(time.Duration(what.For) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	made.What = end
	if cause := context.Cause(ctx); cause != nil {
		made.Cause = cause.Error()
	}
	if err := r.note(made); err != nil {
		return nil, err
	}
	if what.Insist {
		return map[string]string{"by": r.sidecar}, nil
	}
	return map[string]string{"by": r.sidecar}, context.Cause(ctx)
}

// run is the life of a sidecar, until ctx is done.
func (s spec) run(ctx context.Context, log io.Writer) error {
	file, err := os.OpenFile(s.Record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // all is written by then
	records := recorder{s.Name, file}

	poolConfig, err := pgxpool.ParseConfig(pgtest.PoolURL(s.URL))
	if err != nil {
		return err
	}
	poolConfig.MaxConns = 6
	if s.lose != nil {
		poolConfig.ConnConfig.DialFunc = losingDial(poolConfig.ConnConfig.DialFunc, s.lose)
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return err
	}
	defer pool.Close()
	logger := zerolog.New(log).With().Timestamp().Str("sidecar", s.Name).Logger().Level(zerolog.InfoLevel)
	bell, err := s.listener(logger)
	if err != nil {
		return err
	}
	config := dispatch.Config{
		Name: s.Name, Types: map[string]dispatch.Type{}, Concurrency: s.Concurrency, Bell: bell, Presence: bell,
		LeaseTime: s.LeaseTime, ShutdownGrace: cmp.Or(s.Grace, 5*time.Second), Logger: logger,
	}
	if s.NoPresence {
		config.Presence = nil
	}
	for name, concurrency := range s.Types {
		config.Types[name] = dispatch.Type{
			Handler: gofunc.Typed(records.handle), Concurrency: concurrency,
			Backoff: dispatch.Backoff{Base: 100 * time.Millisecond},
		}
	}
	d, err := dispatch.New(pool, config)
	if err != nil {
		return err
	}

	listening, stopListening := context.WithCancel(context.WithoutCancel(ctx)) // present until the last job is settled
	watching, stopWatching := context.WithCancel(ctx)
	var others sync.WaitGroup
	var listenErr, readyErr error
	others.Go(func() { listenErr = bell.Run(listening) })
	others.Go(func() { readyErr = noteReady(watching, d, bell, records) })
	err = d.Run(ctx)
	stopWatching()
	stopListening()
	others.Wait()
	return errors.Join(err, listenErr, readyErr)
}

func (s spec) listener(logger zerolog.Logger) (*listener.Listener, error) {
	connConfig, err := pgx.ParseConfig(s.URL)
	if err != nil {
		return nil, err
	}
	if s.cutBell != nil {
		dial := connConfig.DialFunc
		connConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			if s.cutBell.Load() {
				return nil, errors.New("the network is cut")
			}
			return dial(ctx, network, address)
		}
	}
	return listener.New(listener.Config{ConnConfig: connConfig, ApplicationName: s.Name, Logger: logger})
}

// noteReady notes when a sidecar claims, hears and is seen, from when on it is as it is in its every day.
func noteReady(ctx context.Context, d *dispatch.Dispatcher, bell *listener.Listener, records recorder) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.Ready():
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for bell.Deaf() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return records.note(record{What: ready})
}

// sidecarMain is a child of the tests. It ends on SIGTERM, and when the tests are gone.
func sidecarMain(described string) int {
	var s spec
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
	if err := s.run(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		return 1
	}
	return 0
}

// sidecar is one that runs, seen from the tests.
type sidecar struct {
	fixture
	spec
	log     *logBuffer
	process *os.Process
	stop    func() error // as SIGTERM does; returns when it has ended. May be called again.
}

// complete fills in what a test leaves out of a spec.
func (f fixture) complete(s spec) spec {
	s.URL = cmp.Or(s.URL, f.url)
	s.Record = filepath.Join(f.TempDir(), "record")
	return s
}

// goSidecar runs a sidecar in this process until the test ends.
func (f fixture) goSidecar(s spec) *sidecar {
	f.Helper()
	started := &sidecar{fixture: f, spec: f.complete(s), log: &logBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- started.run(ctx, started.log) }()
	started.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	f.Cleanup(func() {
		if err := started.stop(); err != nil {
			f.Errorf("sidecar %s: %v", s.Name, err)
		}
		started.showLog()
	})
	return started
}

// forkSidecar runs a sidecar in a process of its own until the test ends.
func (f fixture) forkSidecar(s spec) *sidecar {
	f.Helper()
	started := &sidecar{fixture: f, spec: f.complete(s), log: &logBuffer{}}
	described, err := json.Marshal(started.spec)
	if err != nil {
		f.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	child := exec.Command(path)
	child.Env = append(os.Environ(), sidecarEnv+"="+string(described))
	child.Stdout, child.Stderr = started.log, started.log
	lifeline, err := child.StdinPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := child.Start(); err != nil {
		f.Fatal(err)
	}
	started.process = child.Process
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	wait := sync.OnceValue(func() error { return <-ended })
	started.stop = sync.OnceValue(func() error {
		return errors.Join(started.process.Signal(syscall.SIGTERM), wait())
	})
	f.Cleanup(func() {
		_ = started.process.Kill() // it may have ended long ago
		_ = wait()
		_ = lifeline.Close()
		started.showLog()
	})
	return started
}

func (s *sidecar) showLog() {
	if s.Failed() {
		s.Logf("log of %s:\n%s", s.Name, s.log)
	}
}

func (s *sidecar) signal(what syscall.Signal) {
	s.Helper()
	if err := s.process.Signal(what); err != nil {
		s.Fatalf("signal %s: %v", s.Name, err)
	}
}

// worker is its number in job_workers.
func (s *sidecar) worker() int {
	s.Helper()
	return s.count(`SELECT id FROM job_workers WHERE name = $1 AND dead_at IS NULL`, s.Name)
}

// records are all that it has noted until now.
func (s *sidecar) records() []record {
	s.Helper()
	text := s.recorded()
	var noted []record
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return noted
		}
		var one record
		if err := json.Unmarshal(line, &one); err != nil {
			s.Fatalf("record %q: %v", line, err)
		}
		noted = append(noted, one)
		text = rest
	}
}

func (s *sidecar) recorded() []byte {
	s.Helper()
	text, err := os.ReadFile(s.Record)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
	return text
}

// find returns its first record of that kind and job.
func (s *sidecar) find(what, job string) (record, bool) {
	s.Helper()
	for _, one := range s.records() {
		if one.What == what && one.Job == job {
			return one, true
		}
	}
	return record{}, false
}

// await waits for such a record.
func (s *sidecar) await(what, job string) record {
	s.Helper()
	var found record
	s.eventually(fmt.Sprintf("%s notes %s %s", s.Name, what, job), func() bool {
		var there bool
		found, there = s.find(what, job)
		return there
	})
	return found
}

// enqueue inserts a job by the values of some columns.
func (f fixture) enqueue(jobType string, what order, maxAttempts int) string {
	f.Helper()
	return f.insert(`INSERT INTO jobs (type, payload, max_attempts) VALUES ($1, $2, $3) RETURNING id`, jobType, what, maxAttempts)
}

// enqueueFor inserts jobs, and lets other sidecars have those that they are quicker to claim, until owner has one.
func (f fixture) enqueueFor(owner *sidecar, jobType string, what order, maxAttempts int) string {
	f.Helper()
	for range 200 {
		id := f.enqueue(jobType, what, maxAttempts)
		mine := false
		f.eventually("somebody runs job "+id, func() bool {
			_, mine = owner.find(start, id)
			return mine || f.count(`SELECT count(*) FROM jobs WHERE id = $1 AND status = 'completed'`, id) == 1
		})
		if mine {
			return id
		}
	}
	f.Fatalf("%s claimed none of 200 jobs", owner.Name)
	return ""
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
