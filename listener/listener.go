package listener

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	channelPrefix = "pgbell_"
	roleListener  = "listener"
	roleBell      = "bell"
)

// Listener hears rings and holds this process's presence lock. All its methods may be called from any goroutine, save
// that Sleep and Awake are for one at a time.
type Listener struct {
	config  Config
	channel string
	logger  zerolog.Logger
	metrics *metrics
	hearing *hearing

	rings, cancels chan struct{}
	running        atomic.Bool

	bell      nudge
	presence  presence
	queueUsed atomic.Bool // of the server, since the last canary: something else was heard

	slumber *slumber
	polling polling

	mu       sync.Mutex
	listenOn *link // the present LISTEN connection, nil between two
}

// New returns a Listener, which does nothing before Run. All mistakes in config are reported at once.
func New(config Config) (*Listener, error) {
	config, err := config.resolved()
	if err != nil {
		return nil, fmt.Errorf("configure listener: %w", err)
	}
	l := &Listener{
		config:  config,
		channel: channelPrefix + config.Schema,
		logger:  config.Logger.With().Str("component", "listener").Logger(),
		rings:   make(chan struct{}, 1),
		cancels: make(chan struct{}, 1),
	}
	l.metrics = newMetrics(l)
	l.hearing = &hearing{
		logger: l.logger, metrics: l.metrics, calmAfter: config.ReconnectMax,
		ring:  func() { offer(l.rings) },
		since: time.Now(),
		cause: cause{reason: notStarted, what: "the listener has just started"},
	}
	l.slumber = newSlumber(config, l.metrics, func() { offer(l.rings) }, l.bell.now)
	l.polling = polling{min: config.PollAwake, max: max(config.PollAwake, config.PollAwakeMax)}
	return l, nil
}

// Run keeps both connections until ctx is done, whatever befalls them, and then returns nil. It returns when all its
// goroutines have ended and both connections are closed. A second Run is an error.
func (l *Listener) Run(ctx context.Context) error {
	if l.running.Swap(true) {
		return errors.New("run listener: it was run before")
	}
	l.hearing.start()
	l.slumber.start(time.Now())
	var both sync.WaitGroup
	both.Go(func() { l.keepListening(ctx) })
	both.Go(func() { l.keepBell(ctx) })
	both.Wait()
	l.slumber.stop(time.Now())
	l.hearing.stop()
	return nil
}

// Rings delivers a token after rings, after each LISTEN, and whenever Deaf has changed. Rings that come before the token is
// taken share it. Always the same channel, of capacity 1; never closed.
func (l *Listener) Rings() <-chan struct{} { return l.rings }

// Cancels delivers a token, in the same way, when the cancel of a running job was asked for.
func (l *Listener) Cancels() <-chan struct{} { return l.cancels }

// Deaf reports that rings may be missed at present: before Run, until the first echo, and while a connection is lost.
func (l *Listener) Deaf() bool {
	heard, _ := l.hearing.now()
	return !heard
}

// Hearings is how many times the bell has begun to be heard.
func (l *Listener) Hearings() uint64 {
	_, epoch := l.hearing.now()
	return epoch
}

// Health says whether the bell is heard.
type Health struct {
	// Heard is the opposite of Deaf.
	Heard bool
	// Since when it is so, by the clock of this process.
	Since time.Time
	// Cause of deafness, for people; one line without secrets. Empty while the bell is heard.
	Cause string
	// Mend says what to do about it. Empty while the bell is heard.
	Mend string
	// Present reports whether the presence lock is held.
	Present bool
	// Asleep reports whether the sleepers' lock is held: each insert rings.
	Asleep bool
	// HeldUpBy names a transaction that has inserted without ringing and is open for long, for people. Empty if there is
	// none.
	HeldUpBy string
	// QueueFull reports that the server's queue of notifications is more than half full: inserts don't ring, so as to succeed.
	QueueFull bool
}

// Health returns the state of the bell, for health checks.
func (l *Listener) Health() Health {
	health := l.hearing.health()
	health.Present = l.Present()
	asleep, waiting, holder := l.slumber.now()
	health.Asleep, health.QueueFull = asleep, l.slumber.isQueueFull()
	if holder != "" {
		health.HeldUpBy = fmt.Sprintf("%s, for %s", holder, waiting.Round(time.Second))
	}
	return health
}

// Collector returns the Listener's metrics, to be registered by the caller.
func (l *Listener) Collector() prometheus.Collector { return l.metrics }

// offer puts a token into a channel of capacity 1, unless there is one.
func offer(tokens chan<- struct{}) {
	select {
	case tokens <- struct{}{}:
	default:
	}
}
