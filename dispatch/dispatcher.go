package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// SchemaVersion is the version of pgbell's schema that this package speaks.
const SchemaVersion = 3

// Dispatcher claims due jobs, runs them and settles them. See the package comment for what it promises.
type Dispatcher struct {
	config   Config
	log      zerolog.Logger
	sql      statements
	bell     Bell
	metrics  *metrics
	lanes    *lanes
	attempts attempts
	settler  *settler
	pauses   pauses
	walk     walk
	database database
	payloads chan struct{} // has a token of each that reads one

	// The pool, divided. Each kept connection is of its loop alone.
	claims, beats, reaping keptConn
	shared                 shared

	// Of claimLoop alone.
	levels    *levels
	draining  bool      // the last claim left jobs behind
	claimedAt time.Time // when the last claim was sent
	passed    *pause    // between tries of jobs that others have locked
	wake      wake      // how it was woken, until the next claim
	left      leftOut   // what this turn left out for want of room
	shy       shyness
	alone     solitude
	deaf      bool // the bell was so at the last turn
	hearings  uint64

	started     atomic.Bool
	ready       chan struct{}
	readyOnce   sync.Once
	crew        crew
	reaperNudge nudge

	claiming    chan struct{} // holds a token while a claim is under way, and while what it led to is compared with the database
	worker      atomic.Int32  // our number in job_workers
	others      atomic.Int32  // other workers alive, as of the last heartbeat
	clock       func() time.Duration
	lastBeat    atomic.Int64 // when the last heartbeat that arrived was sent, by clock
	suspectTill atomic.Int64 // until when claims may turn up whose answer was lost, by clock
	compared    time.Time    // by heartbeatLoop alone: when our leases were last compared with the database's
	epoch       time.Time
	beatNow     nudge // heartbeat at once
	busy        nudge // a worker that held no jobs holds some, or connections are scarce
}

// New returns a Dispatcher that works through pool and does nothing before Run. Of the pool's connections, four at least, it keeps
// three for claims, heartbeats and the reaper, so that no other statement has these wait; where others use the pool too, it should
// have as many more. All mistakes in config are reported at once.
func New(pool *pgxpool.Pool, config Config) (*Dispatcher, error) {
	config, err := config.withDefaults()
	if pool == nil {
		err = errors.Join(errors.New("no pool"), err)
	} else if most := pool.Config().MaxConns; most < leastConns {
		err = errors.Join(fmt.Errorf("the pool must have room for at least %d connections, it has %d", leastConns, most), err)
	}
	if err != nil {
		return nil, fmt.Errorf("configure dispatcher: %w", err)
	}
	log := config.Logger.With().Str("component", "dispatch").Logger()
	metrics, busy := newMetrics(), newNudge()
	scarce := &scarcity{tell: busy}
	d := &Dispatcher{
		config: config, log: log, bell: config.Bell,
		claims: keptConn{pool: pool, scarcity: scarce}, beats: keptConn{pool: pool, scarcity: scarce},
		reaping: keptConn{pool: pool, scarcity: scarce}, shared: newShared(pool, scarce),
		metrics: metrics, lanes: newLanes(config, metrics), settler: newSettler(),
		attempts:    attempts{byLease: map[pgtype.UUID]*attempt{}},
		database:    database{log: log, reset: pool.Reset},
		deaf:        true,
		pauses:      pauses{wake: newNudge()},
		walk:        newWalk(),
		payloads:    make(chan struct{}, payloadReaders),
		ready:       make(chan struct{}),
		epoch:       time.Now(),
		clock:       sinceBoot,
		reaperNudge: newNudge(),
		levels:      newLevels(config.Types),
		passed:      newPause(5*time.Millisecond, time.Second),
		claiming:    make(chan struct{}, 1),
		beatNow:     newNudge(),
		busy:        busy,
		alone:       solitude{wait: minSolitudeWait},
	}
	// The server ends a statement before the client gives it up.
	d.sql = newStatements(config.Schema, d.statementTimeout()*4/5)
	d.crew.run = d.run
	metrics.observe(d.lanes)
	return d, nil
}

// Ready is closed when the first claim was made.
func (d *Dispatcher) Ready() <-chan struct{} { return d.ready }

// Failing returns which statements fail at present, in order. They are tried again until they succeed.
func (d *Dispatcher) Failing() []Failure { return d.database.now() }

// Collector returns the Dispatcher's metrics, for the caller to register.
func (d *Dispatcher) Collector() prometheus.Collector { return d.metrics }

// Run claims and runs jobs until ctx is done. Then it claims no more, lets running jobs go on for ShutdownGrace, cancels
// those that are left and gives them back, writes what came of all, and returns nil. A database that can't be reached is
// waited for. Run may be called once. It returns ErrStuck if a handler did not stop when it was told to.
func (d *Dispatcher) Run(ctx context.Context) error {
	if d.started.Swap(true) {
		return errors.New("run dispatcher: it was run before")
	}
	defer d.beats.release()
	if !d.register(ctx) {
		return nil
	}
	background := context.WithoutCancel(ctx)
	service, stopService := context.WithCancel(background) // heartbeats go on while jobs are held
	defer stopService()
	writing, stopWriting := context.WithCancel(background)
	defer stopWriting()

	var services, writers, chores sync.WaitGroup
	services.Go(func() { d.heartbeatLoop(service) })
	chores.Go(func() { d.reapLoop(ctx) })
	chores.Go(func() { d.pruneLoop(ctx) })
	chores.Go(func() { d.pauseLoop(service) })
	for range settleWriters {
		writers.Go(func() { d.settle(writing) })
	}
	d.log.Info().Int32("worker_id", d.worker.Load()).Int("concurrency", d.config.Concurrency).Msg("dispatcher started")

	d.claimLoop(ctx, background)
	d.endSolitude(ErrShutdown)
	stuck := d.finish()
	d.settler.close()
	writingEnds := time.AfterFunc(d.statementTimeout()+settleAtShutdown, stopWriting)
	writers.Wait()
	writingEnds.Stop()
	stopService()
	services.Wait()
	chores.Wait()
	d.unregister(background)
	d.log.Info().Msg("dispatcher stopped")
	if stuck > 0 {
		return fmt.Errorf("stop dispatcher: %d jobs: %w", stuck, ErrStuck)
	}
	return nil
}

const (
	// stopPatience is how long handlers may take to return once their contexts are done at a shutdown.
	stopPatience = 10 * time.Second
	// settleAtShutdown is how long outcomes may take to be written at a shutdown.
	settleAtShutdown = 10 * time.Second
)

// finish waits for the running jobs: for the grace period, and then, cancelled, for a while more. It returns how many are
// still running after that.
func (d *Dispatcher) finish() int {
	ended := make(chan struct{})
	go func() {
		d.crew.running.Wait()
		close(ended)
	}()
	if running := d.lanes.runs(); running > 0 {
		d.log.Info().Int("running", running).Dur("grace_ms", d.config.ShutdownGrace).Msg("waiting for running jobs")
	}
	grace := time.NewTimer(d.config.ShutdownGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return 0
	case <-grace.C:
	}
	d.log.Warn().Int("running", d.lanes.runs()).Msg("grace period over: running jobs are cancelled and given back")
	d.attempts.cancelAll(ErrShutdown)
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-ended:
		return 0
	case <-patience.C:
		return d.lanes.runs()
	}
}

// statementTimeout bounds each statement: a hung one must not cost the lease.
func (d *Dispatcher) statementTimeout() time.Duration {
	return min(d.config.LeaseTime/3, 10*time.Second)
}

// nudge is a token that wakes one loop.
type nudge chan struct{}

func newNudge() nudge { return make(nudge, 1) }

func (n nudge) send() {
	select {
	case n <- struct{}{}:
	default:
	}
}
