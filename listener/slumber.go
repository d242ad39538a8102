package listener

import (
	"sync"
	"time"
)

const (
	// shortSleep: a sleep that the rate of rings ends before that is a sample of this rate, and the next one waits longer.
	shortSleep = 2 * rateWindow
	// busyFor and busyRings: a Dispatcher that needs no rings lets S go after that long, once it has heard that many.
	busyFor   = 50 * time.Millisecond
	busyRings = 10
	// watchAfter is how long Sleep polls while transactions hold U, before it returns and leaves it to the bell connection
	// to watch them and to ring when they have ended.
	watchAfter = 50 * time.Millisecond
	// From fullQueue on the server's queue of notifications is no longer added to, until it has fallen to drainedQueue.
	fullQueue, drainedQueue = 0.5, 0.25
)

// slumber is whether this sidecar sleeps. Sleep says when it may, the ear when it must stop, and the bell connection takes
// and releases S. Each change that the Dispatcher has to know of rings.
type slumber struct {
	metrics *metrics
	ring    func() // for the Dispatcher
	nudge   func() // for the bell connection
	// stirred gets a token when Sleep should look again.
	stirred chan struct{}

	quietMin, quietMax time.Duration

	mu        sync.Mutex
	wanted    bool
	wantedAt  time.Time
	held      bool // S, all of it, since the last take
	heldAt    time.Time
	asleepFor time.Duration // in all, before heldAt
	startedAt time.Time
	stoppedAt time.Time
	takes     uint64 // times that S was taken
	waiting   bool   // transactions of before the last take may hold U
	clears    uint64 // times that the last of them had ended
	holder    string // the one that keeps us waiting for long, for people
	rate      rate
	fastAt    time.Time     // when the rings last came too fast
	quiet     time.Duration // the next sleep after a short one waits that long
	sleepAt   time.Time     // not before
	busyAt    time.Time     // since when the Dispatcher needs no rings; zero if it does
	busyRings int           // heard since
	fullQueue bool
}

// mark names a state of being heard and asleep: rows from before it were looked for, or not yet.
type mark struct{ epoch, takes, clears uint64 }

func newSlumber(config Config, metrics *metrics, ring, nudge func()) *slumber {
	return &slumber{
		metrics: metrics, ring: ring, nudge: nudge, stirred: make(chan struct{}, 1),
		quietMin: config.Quiet, quietMax: config.QuietMax, quiet: config.Quiet,
		rate: newRate(config.AwakeAbove),
	}
}

// stands reports whether each insert rings, save those of transactions that the bell connection watches.
func (s *slumber) stands(epoch uint64, now time.Time) (mark, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	patient := s.waiting && now.Sub(s.heldAt) < watchAfter
	return mark{epoch, s.takes, s.clears}, s.wanted && s.held && !patient
}

// fallAsleep asks for S, if it has been quiet for long enough: nothing found since worked, and no flood of rings lately.
func (s *slumber) fallAsleep(worked, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted || s.fullQueue || now.Sub(worked) < s.quietMin || now.Before(s.sleepAt) || now.Sub(s.fastAt) < rateWindow {
		return
	}
	s.wanted, s.wantedAt = true, now
	s.nudge()
}

// restless reports whether the last sleep was a short one.
func (s *slumber) restless() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet > s.quietMin
}

// busy notes that the Dispatcher needs no rings for now, needed that it does, and reports whether it didn't before.
func (s *slumber) busy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busyAt.IsZero() {
		s.busyAt, s.busyRings = now, 0
	}
}

func (s *slumber) needed() (wasBusy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasBusy = !s.busyAt.IsZero()
	s.busyAt = time.Time{}
	return wasBusy
}

// rang counts a ring, and wakes when they come too fast or to nobody's use.
func (s *slumber) rang(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busyRings++
	fast, hastily := s.rate.add(now)
	if s.quiet > s.quietMin {
		fast = hastily
	}
	if fast {
		s.fastAt = now
	}
	switch {
	case !s.wanted:
	case fast:
		s.metrics.rushes.Inc()
		if now.Sub(s.wantedAt) < shortSleep {
			s.quiet = min(4*s.quiet, s.quietMax)
			s.sleepAt = now.Add(s.quiet)
		} else {
			s.quiet = s.quietMin
		}
		s.letGo()
	case !s.busyAt.IsZero() && now.Sub(s.busyAt) >= busyFor && s.busyRings >= busyRings:
		s.letGo()
	}
}

// letGo has S released. From then on inserts may be silent.
func (s *slumber) letGo() {
	s.wanted = false
	s.ring()
	s.nudge()
}

// queued takes how full the server's queue of notifications is, and reports whether that has changed what is done.
func (s *slumber) queued(usage float64) (full, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.fullQueue
	s.fullQueue = usage > fullQueue || was && usage > drainedQueue
	if s.fullQueue && s.wanted {
		s.letGo()
	}
	return s.fullQueue, s.fullQueue != was
}

// shouldHold reports whether the bell connection is to hold S. Where it isn't, S counts as released from now on.
func (s *slumber) shouldHold(may bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted && may {
		return true
	}
	s.end(time.Now())
	return false
}

// lost notes that S is gone with its connection.
func (s *slumber) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(time.Now())
}

func (s *slumber) end(now time.Time) {
	if s.held {
		s.asleepFor += now.Sub(s.heldAt)
	}
	if s.held || s.wanted {
		s.ring()
		offer(s.stirred)
	}
	s.wanted, s.held, s.waiting, s.holder = false, false, false, ""
}

// taken notes that S is held, and whether transactions hold U that may have inserted before.
func (s *slumber) taken(waiting bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.heldAt, s.waiting, s.holder = true, now, waiting, ""
	s.takes++
	s.metrics.sleeps.Inc()
	offer(s.stirred)
}

// ended notes that some of those transactions have ended: the Dispatcher should look. Last: that all have.
func (s *slumber) ended(last bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last {
		s.metrics.waits.Observe(now.Sub(s.heldAt).Seconds())
		s.waiting, s.holder = false, ""
		s.clears++
		offer(s.stirred)
	}
	s.ring()
}

// heldUpBy notes, for people, who keeps U.
func (s *slumber) heldUpBy(holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder = holder
}

func (s *slumber) isQueueFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullQueue
}

func (s *slumber) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// start and stop note that Run has begun and ended.
func (s *slumber) start(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startedAt = now
}

func (s *slumber) stop(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(now)
	s.stoppedAt = now
}

// seconds returns for how long in all S was held, and for how long it wasn't, since Run.
func (s *slumber) seconds(now time.Time) (asleep, awake float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := s.asleepFor
	if s.held {
		total += now.Sub(s.heldAt)
	}
	if s.startedAt.IsZero() {
		return 0, 0
	}
	if !s.stoppedAt.IsZero() {
		now = s.stoppedAt
	}
	return total.Seconds(), (now.Sub(s.startedAt) - total).Seconds()
}

// now returns whether S is held, for how long U's holders have been waited for, and who keeps it for long.
func (s *slumber) now() (asleep bool, waiting time.Duration, holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		waiting = time.Since(s.heldAt)
	}
	return s.held, waiting, s.holder
}
