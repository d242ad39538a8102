package subprocess

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Guard keeps a second process of this program alive, which kills the process groups of all running children when this
// process dies. One serves all Handlers of a process, and must be running before and after they are.
type Guard struct {
	logger  zerolog.Logger
	forks   chan fork
	emptied chan struct{} // a token: live may be empty
	ready   chan struct{}
	ended   chan struct{}
	begin   sync.Once

	mu      sync.Mutex
	live    map[int]struct{} // groups that are not known to be dead
	process *guardProcess    // nil: there is none
}

// GuardConfig configures a Guard. The zero value of each field stands for its default.
type GuardConfig struct {
	// Logger gets the starts and deaths of the guard process. Defaults to no log.
	Logger zerolog.Logger
}

// fork asks the thread of Run to start a child.
type fork struct {
	path  string
	argv  []string
	attr  *os.ProcAttr
	reply chan<- forked // has room
}

type forked struct {
	process *os.Process
	err     error
}

const (
	startTimeout    = 5 * time.Second // of a child's wait for the guard
	maxRespawnDelay = 5 * time.Second
)

var (
	errGuardAway  = errors.New("the guard process isn't running: without it, nothing would stop the command if this process died")
	errGuardEnded = errors.New("the guard has ended: this process is shutting down")
)

// NewGuard returns a Guard, which does nothing before Run. It fails in a process that was started as a guard but whose main
// didn't call GuardMain.
func NewGuard(config GuardConfig) (*Guard, error) {
	if os.Getenv(guardEnv) != "" {
		return nil, errors.New("this process was started as a guard: call subprocess.GuardMain first thing in main")
	}
	return &Guard{
		logger:  config.Logger.With().Str("component", "guard").Logger(),
		forks:   make(chan fork),
		emptied: make(chan struct{}, 1),
		ready:   make(chan struct{}),
		ended:   make(chan struct{}),
		live:    map[int]struct{}{},
	}, nil
}

// Ready is closed when the guard process is there for the first time. Handlers wait for it by themselves.
func (g *Guard) Ready() <-chan struct{} { return g.ready }

// Run starts the guard process, starts it again whenever it dies, and starts the children of all Handlers. It may be
// called once. When ctx is done it lets no more children start, and returns when the last has ended: give it a context
// that outlives the handlers' work, such as one that is cancelled when Dispatcher.Run has returned. An error means that
// the guard process couldn't be started in the first place.
//
// Run keeps its thread for itself: children die with the thread that started them.
func (g *Guard) Run(ctx context.Context) error {
	again := true
	g.begin.Do(func() { again = false })
	if again {
		return errors.New("run guard: it ran before; make a new one")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(g.ended)

	p, err := spawn()
	if err != nil {
		return fmt.Errorf("start guard process: %w", err)
	}
	close(g.ready)
	delay := time.Duration(0)
	for {
		started := time.Now()
		if g.serve(ctx, p) {
			p.dismiss()
			return nil
		}
		p.dismiss()
		g.logger.Warn().Int("pid", p.process.Pid).Msg("the guard process has died: starting another")
		if time.Since(started) > maxRespawnDelay {
			delay = 0
		}
		for p = nil; p == nil; {
			if g.pause(ctx, delay) {
				return nil
			}
			delay = min(2*delay+10*time.Millisecond, maxRespawnDelay)
			if p, err = spawn(); err != nil {
				g.logger.Error().Err(err).Msg("no guard process: no command is started until there is one")
			}
		}
	}
}

// serve tells p which groups live, and starts children until p dies, or (true) ctx is done and no group is alive.
func (g *Guard) serve(ctx context.Context, p *guardProcess) (done bool) {
	g.adopt(p)
	defer g.adopt(nil)
	g.logger.Info().Int("pid", p.process.Pid).Msg("the guard process is running") // and has been told
	for {
		if ctx.Err() != nil && g.empty() {
			return true
		}
		select {
		case <-p.died:
			return false
		case f := <-g.forks:
			if ctx.Err() != nil {
				f.reply <- forked{nil, errGuardEnded}
				continue
			}
			process, err := g.fork(f)
			f.reply <- forked{process, err}
		case <-g.emptied:
		case <-doneOnce(ctx):
		}
	}
}

// pause waits for about delay, or (true) until ctx is done and no group is alive.
func (g *Guard) pause(ctx context.Context, delay time.Duration) (done bool) {
	timer := time.NewTimer(delay/2 + rand.N(delay/2+1))
	defer timer.Stop()
	for {
		if ctx.Err() != nil && g.empty() {
			return true
		}
		select {
		case <-timer.C:
			return false
		case <-g.emptied:
		case <-doneOnce(ctx):
		}
	}
}

// doneOnce is nil once ctx is done: there is nothing new to hear then.
func doneOnce(ctx context.Context) <-chan struct{} {
	if ctx.Err() != nil {
		return nil
	}
	return ctx.Done()
}

func (g *Guard) empty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.live) == 0
}

func (g *Guard) adopt(p *guardProcess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.process = p
	for pgid := range g.live {
		p.tell('+', pgid)
	}
}

// start has the thread of Run start a child, as the leader of a group of its own.
func (g *Guard) start(ctx context.Context, path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	reply := make(chan forked, 1)
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case g.forks <- fork{path: path, argv: argv, attr: attr, reply: reply}:
		r := <-reply
		return r.process, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-g.ended:
		return nil, errGuardEnded
	case <-timer.C:
		return nil, errGuardAway
	}
}

func (g *Guard) fork(f fork) (*os.Process, error) {
	dieWithThread(f.attr.Sys)
	process, err := os.StartProcess(f.path, f.argv, f.attr)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live[process.Pid] = struct{}{}
	g.process.tell('+', process.Pid)
	return process, nil
}

// forget is called while the leader of a dead group is not yet reaped.
func (g *Guard) forget(pgid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, pgid)
	g.process.tell('-', pgid)
	if len(g.live) == 0 {
		select {
		case g.emptied <- struct{}{}:
		default:
		}
	}
}
