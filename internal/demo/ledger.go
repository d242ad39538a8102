package demo

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered, however long the demo runs.
const (
	maxRemembered = 20_000  // jobs, from their insert until the check that lets them go
	maxSamples    = 100_000 // pickup times
	maxRecent     = 500     // pickup times of the live view
	maxUnexpected = 50      // lines; more are counted
	maxEarly      = 10_000  // starts of jobs that the ledger doesn't know
	maxUndone     = 10_000  // ids of rows that were rolled back
	earlyFor      = 30 * time.Second
	pickupEvery   = time.Second
)

// entry is what is known of one inserted job.
type entry struct {
	id        string
	job       plannedJob
	committed time.Time // the reply to the commit has arrived
	starts    int       // as the application saw them
	status    string    // as last read from the table
	attempts  int
}

func (e *entry) final() bool { return e.status == statusCompleted || e.status == statusFailed }

// The statuses that a job of the stream may have.
const (
	statusPending    = "pending"
	statusProcessing = "processing"
	statusCompleted  = "completed"
	statusFailed     = "failed"
)

// Tally counts the stream's jobs of one type.
type Tally struct {
	Inserted  int `json:"inserted"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Retried   int `json:"retried"` // attempts after a job's first

	waiting, running int
}

type earlyStart struct {
	at       time.Time // of the first one
	attempts []int
}

// ledger keeps, for each job, what was inserted and what the application saw. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	entries map[string]*entry
	open    map[string]*entry // those that weren't final when last looked at
	order   []*entry          // all, oldest first
	early   map[string]*earlyStart
	undone  map[string]string // id of a row that was rolled back -> what it was
	undoing []string          // the same ids, oldest first

	final               map[string]Tally // by type, of jobs that aren't open
	pickup, recent      samples
	pickupOf            map[string]*samples // by type
	pickupNow           Pickup              // of pickup, not older than pickupEvery
	pickupAt            time.Time
	inserted            map[string]int // by type
	refused, rolledBack int
	verified            int // jobs that were compared with the table
	unexpected          []string
	unexpectedMore      int
}

func newLedger() *ledger {
	l := &ledger{
		entries: map[string]*entry{}, open: map[string]*entry{}, early: map[string]*earlyStart{}, undone: map[string]string{},
		final: map[string]Tally{}, inserted: map[string]int{},
		pickup: samples{limit: maxSamples}, recent: samples{limit: maxRecent}, pickupOf: map[string]*samples{},
	}
	for _, way := range ways {
		l.pickupOf[way.jobType] = &samples{limit: maxSamples / len(ways)}
	}
	return l
}

// insertedAt records jobs whose insert was committed, with the ids that the database gave them.
func (l *ledger) insertedAt(committed time.Time, ids []string, jobs []plannedJob) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, id := range ids {
		e := &entry{id: id, job: jobs[i], committed: committed, status: statusPending}
		l.entries[id], l.open[id] = e, e
		l.order = append(l.order, e)
		l.inserted[e.job.jobType]++
		// The handler may have been quicker than the reply to the commit.
		if early := l.early[id]; early != nil {
			delete(l.early, id)
			for i, attempt := range early.attempts {
				at := early.at
				if i > 0 {
					at = committed
				}
				l.start(e, attempt, at)
			}
		}
	}
}

// started records that the application saw an attempt begin. Jobs that the ledger doesn't know are kept for a while.
func (l *ledger) started(id string, attempt int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[id]; e != nil {
		l.start(e, attempt, at)
		return
	}
	if what, undone := l.undone[id]; undone {
		l.note("%s %s ran although it was rolled back", what, id)
		return
	}
	early := l.early[id]
	if early == nil {
		if len(l.early) >= maxEarly {
			return
		}
		early = &earlyStart{at: at}
		l.early[id] = early
	}
	if len(early.attempts) < 10 {
		early.attempts = append(early.attempts, attempt)
	}
}

func (l *ledger) start(e *entry, attempt int, at time.Time) {
	e.starts++
	if attempt == 1 && e.starts == 1 && e.job.delay == 0 {
		passed := at.Sub(e.committed)
		l.pickup.add(passed)
		l.recent.add(passed)
		l.pickupOf[e.job.jobType].add(passed)
	}
}

// rolledBackRow records the id of a row that was inserted and taken back before it was committed.
func (l *ledger) rolledBackRow(id string, job plannedJob) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rolledBack++
	what := fmt.Sprintf("%s (%s)", job.jobType, job.scenario)
	if l.early[id] != nil {
		l.note("%s %s ran although it was rolled back", what, id)
	}
	l.undone[id] = what
	l.undoing = append(l.undoing, id)
	if len(l.undoing) > maxUndone {
		delete(l.undone, l.undoing[0])
		l.undoing = l.undoing[1:]
	}
}

func (l *ledger) refusedRow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
}

// surprise records something that must not happen.
func (l *ledger) surprise(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(format, args...)
}

func (l *ledger) note(format string, args ...any) {
	if len(l.unexpected) >= maxUnexpected {
		l.unexpectedMore++
		return
	}
	l.unexpected = append(l.unexpected, fmt.Sprintf(format, args...))
}

// openIDs returns the ids of at most limit jobs that weren't final when they were last looked at.
func (l *ledger) openIDs(limit int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]string, 0, min(len(l.open), limit))
	for id := range l.open {
		if len(ids) == limit {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// sighting is a job's row as it is now.
type sighting struct {
	ID, Status string
	Attempts   int
}

// observe takes note of a sighting.
func (l *ledger) observe(seen sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.open[seen.ID]
	if e == nil {
		return
	}
	e.status, e.attempts = seen.Status, seen.Attempts
	if !e.final() {
		return
	}
	delete(l.open, e.id)
	counts := l.final[e.job.jobType]
	counts.add(e)
	l.final[e.job.jobType] = counts
}

func (t *Tally) add(e *entry) {
	switch e.status {
	case statusCompleted:
		t.Completed++
	case statusFailed:
		t.Failed++
	case statusProcessing:
		t.running++
	default:
		t.waiting++
	}
	t.Retried += max(e.attempts-1, 0)
}

// byType counts the jobs of each type by the status in which they were last seen.
func (l *ledger) byType() map[string]Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]Tally{}
	for _, way := range ways {
		sum := l.final[way.jobType]
		sum.Inserted = l.inserted[way.jobType]
		counts[way.jobType] = sum
	}
	for _, e := range l.open {
		sum := counts[e.job.jobType]
		sum.add(e)
		counts[e.job.jobType] = sum
	}
	return counts
}

// surplus removes and returns the oldest jobs beyond limit, as far as they are final.
func (l *ledger) surplus(limit int) []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) <= limit {
		return nil
	}
	return l.remove(func(e *entry) bool { return len(l.entries) > limit && l.open[e.id] == nil })
}

// take removes and returns all jobs; unless unfinished, only those that are final.
func (l *ledger) take(unfinished bool) []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remove(func(e *entry) bool { return unfinished || l.open[e.id] == nil })
}

func (l *ledger) remove(leaves func(*entry) bool) []*entry {
	var taken, kept []*entry
	for _, e := range l.order {
		if !leaves(e) {
			kept = append(kept, e)
			continue
		}
		taken = append(taken, e)
		delete(l.entries, e.id)
	}
	l.order = kept
	return taken
}

func (l *ledger) openCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

func (l *ledger) insertedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, count := range l.inserted {
		total += count
	}
	return total
}

func (l *ledger) completed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, count := range l.final {
		total += count.Completed
	}
	return total
}

func (l *ledger) undoneIDs() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.undoing)
}

// forgetEarly drops starts of jobs that the ledger doesn't know and won't any more: they are somebody else's.
func (l *ledger) forgetEarly(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, early := range l.early {
		if now.Sub(early.at) > earlyFor {
			delete(l.early, id)
		}
	}
}

// pickups returns the percentiles of the last few jobs, and of all, which may be a second old: there may be many.
func (l *ledger) pickups(now time.Time) (recent, all Pickup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.pickupAt) >= pickupEvery {
		l.pickupAt, l.pickupNow = now, l.pickup.pickup()
	}
	return l.recent.pickup(), l.pickupNow
}
