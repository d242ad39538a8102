package dispatch

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// lane is the runtime state of one entry of Config.Types.
type lane struct {
	Type
	name    string
	running int
	metrics laneMetrics
}

// lanes counts slots: which types may be claimed now, and how many of each. Its methods may be called from any goroutine.
type lanes struct {
	mu       sync.Mutex
	byType   map[string]*lane
	any      *lane // for types without their own; nil if there is none
	slots    int   // of the whole process
	free     int
	held     int // jobs claimed and not yet settled
	maxHeld  int
	secluded bool                // a job runs alone, or waits to: there is no room for others
	breakers map[string]*breaker // of those types alone whose handler can't be reached
	freed    chan struct{}       // gets a token when there may be more room than before
}

func newLanes(config Config, metrics *metrics) *lanes {
	l := &lanes{
		byType: make(map[string]*lane, len(config.Types)),
		slots:  config.Concurrency,
		free:   config.Concurrency,
		// Results wait for a settle in batches; while they do, new jobs may run in their slots, within bounds.
		maxHeld:  2*config.Concurrency + 500,
		breakers: map[string]*breaker{},
		freed:    make(chan struct{}, 1),
	}
	for name, conf := range config.Types {
		created := &lane{Type: conf, name: name, metrics: metrics.lane(name)}
		if name == DefaultType {
			l.any = created
		} else {
			l.byType[name] = created
		}
	}
	return l
}

// of returns the lane that jobs of a type run in.
func (l *lanes) of(jobType string) *lane {
	if own, ok := l.byType[jobType]; ok {
		return own
	}
	return l.any
}

// name is a job type as a string, of its lane if it has one of its own: no allocation for each of its jobs.
func (l *lanes) name(jobType []byte) string {
	if own, ok := l.byType[string(jobType)]; ok {
		return own.name
	}
	return string(jobType)
}

// wants is what there is room for.
type wants struct {
	types    []string
	most     []int32
	slots    int
	any      int       // of all types not in others
	others   []string  // types that any does not stand for
	probeAt  time.Time // when the next breaker lets a job through; zero if none is open
	limited  bool      // some type was left out or cut short for want of slots: worth another look when one is freed
	none     bool      // no jobs are held at present
	biggest  int       // bytes of the biggest payload that any of the types takes
	wildcard bool      // there is a default handler
}

func (w wants) nothing() bool { return w.slots == 0 || len(w.types) == 0 && w.any == 0 }

// room returns a function that says how many jobs of a type there is room for, and whether it shares that room with others.
func (w wants) room() func(jobType string) (most int32, other bool) {
	named := make(map[string]int32, len(w.types))
	for i, name := range w.types {
		named[name] = w.most[i]
	}
	return func(jobType string) (int32, bool) {
		if most, ok := named[jobType]; ok {
			return most, false
		}
		if w.any == 0 || slices.Contains(w.others, jobType) {
			return 0, false
		}
		return int32(w.any), true
	}
}

func (l *lanes) wants(now time.Time) wants {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := wants{slots: max(min(l.free, l.maxHeld-l.held), 0), none: l.held == 0, wildcard: l.any != nil}
	if l.secluded {
		return wants{limited: true}
	}
	add := func(jobType string, lane *lane) {
		room := min(lane.Concurrency-lane.running, w.slots)
		if b := l.breakers[jobType]; b != nil {
			room = min(room, b.room(now, &w))
		}
		if room <= 0 {
			w.limited = true
			return
		}
		w.types, w.most = append(w.types, jobType), append(w.most, int32(room))
		w.biggest = max(w.biggest, lane.MaxPayload)
	}
	for name, lane := range l.byType {
		add(name, lane)
	}
	if l.any == nil {
		return w
	}
	w.others = slices.AppendSeq([]string{}, maps.Keys(l.byType)) // never nil: that would be NULL, and match nothing
	named := len(w.types)
	for name, b := range l.breakers {
		if _, own := l.byType[name]; own || name == otherTypes {
			continue
		}
		if !b.probing && now.Sub(b.probeAt) > breakerForget {
			delete(l.breakers, name) // no job of this type is left to ask with
			continue
		}
		w.others = append(w.others, name)
		add(name, l.any)
	}
	probes := len(w.types) - named
	if w.any = min(l.any.Concurrency-l.any.running-probes, w.slots); w.any <= 0 {
		w.any, w.limited = 0, true
	}
	if b := l.breakers[otherTypes]; b != nil && w.any > 0 {
		w.any = min(w.any, b.room(now, &w))
	}
	w.biggest = max(w.biggest, l.any.MaxPayload)
	return w
}

// breaker of a type, with the name that it has: its own, or the one of all types of the default handler that have none.
func (l *lanes) breaker(jobType string, lane *lane) (string, *breaker) {
	if b := l.breakers[jobType]; b != nil || lane != l.any || l.breakers[otherTypes] == nil && len(l.breakers) < maxBreakers {
		return jobType, b
	}
	return otherTypes, l.breakers[otherTypes]
}

// take gives claimed jobs their slots. It reports whether none was held before.
func (l *lanes) take(batch []*attempt) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.held == 0
	l.free -= len(batch)
	l.held += len(batch)
	for _, a := range batch {
		a.lane.running++
		if len(l.breakers) > 0 {
			if _, b := l.breaker(a.job.Type, a.lane); b != nil && !a.answered.Before(b.openedAt) { // else it was claimed before, and is no probe
				b.probing = true
			}
		}
	}
	return first
}

// release frees the slot of an attempt that has ended, and brings its type's breaker up to date. For an Unavailable it
// returns how long its type's jobs wait.
func (l *lanes) release(jobType string, lane *lane, result Result, begun time.Time) (wait time.Duration) {
	l.mu.Lock()
	l.free++
	lane.running--
	if l.free == l.slots {
		l.secluded = false // not only when it is settled: a stranger may have locked its row
	}
	name, b := l.breaker(jobType, lane)
	switch {
	case result.Outcome == OutcomeUnavailable:
		if b == nil {
			b = &breaker{}
			l.breakers[name] = b
		}
		wait = b.open(time.Now(), begun, min(result.Delay, maxRetryAfter))
	case b == nil:
	case result.Outcome == outcomeNone:
		b.probing = false // ended without an answer
	default:
		delete(l.breakers, name)
	}
	l.mu.Unlock()
	l.signal()
	return wait
}

// seclude makes room for none but the jobs that are held, until they have ended or it is revoked.
func (l *lanes) seclude(on bool) {
	l.mu.Lock()
	l.secluded = on
	l.mu.Unlock()
	if !on {
		l.signal()
	}
}

func (l *lanes) isSecluded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.secluded
}

// settled notes that n jobs are no longer held.
func (l *lanes) settled(n int) {
	l.mu.Lock()
	tight := l.held >= l.maxHeld || l.secluded
	l.held -= n
	l.mu.Unlock()
	if tight {
		l.signal()
	}
}

func (l *lanes) holds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// runs is how many attempts are running.
func (l *lanes) runs() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slots - l.free
}

// broken is how many types have an open breaker.
func (l *lanes) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.breakers)
}

func (l *lanes) signal() {
	select {
	case l.freed <- struct{}{}:
	default:
	}
}
