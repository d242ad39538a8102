package dispatch

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// levels remember which types and priorities have pending jobs, and where the claims of each have stopped, so that a claim
// is a few probes of the index however many levels, future jobs and dead entries it holds. A walk over the index, from one
// level's first job to the next's, finds them; what claims by levels miss is found by the next walk: new levels, jobs that
// turn up before a level's mark (committed late, or due in the past), and jobs that somebody had locked.
//
// Only claimLoop uses them.
type levels struct {
	byKey map[levelKey]*level
	names map[string]bool // of the named types
	due   []*level        // with due jobs at the last walk, and not claimed empty since: in their order
	rest  []*level        // the others, the last one that had jobs first

	asked  bool      // something may have come since the last walk that claims miss
	walked time.Time // when the last walk ended
	took   time.Duration
	named  tour
	others tour
}

const (
	// claimLevels is how many levels one claim looks into, firstLevels how many of them are the first ones of named types: a flood of
	// other levels, all before them in order, must not keep a type's own slots empty.
	claimLevels = 32
	firstLevels = 24
	// keepLevels is how many levels without due jobs are remembered, keepDue how many with due jobs: the next walk finds the
	// others again. The first one of each named type is always kept.
	keepLevels = 1024
	keepDue    = 2048
	// markLag is how far behind the last claimed job the next claim begins, while it keeps up: commits come out of order.
	markLag = 200 * time.Millisecond
	// A walk may take this share of the time, but it is made after maxWalkSpacing.
	walkShare      = 20
	maxWalkSpacing = 2 * time.Second
)

// firstTime is the first one that Postgres knows.
var firstTime = time.Date(-4713, time.November, 24, 0, 0, 0, 0, time.UTC)

type levelKey struct {
	jobType  string
	priority int32
}

// level is a type and a priority.
type level struct {
	levelKey
	after place // the last job claimed; the zero place is before all
	// behind: its claims don't keep up, so that they go on exactly where they stopped.
	behind bool
	// head is when the first job is due, by our clock, as of the last walk; zero if there was none, or it was claimed.
	head time.Time
	// seen is when a walk last found a job of it.
	seen time.Time
}

// place is the due time and id of a job.
type place struct {
	due time.Time
	id  pgtype.UUID
}

func (j *Job) place() place { return place{j.ScheduledFor, j.id} }

func (p place) compare(other place) int {
	return cmp.Or(p.due.Compare(other.due), bytes.Compare(p.id.Bytes[:], other.id.Bytes[:]))
}

func (p place) before(other place) bool { return p.compare(other) < 0 }

// justBefore is a place before p and after all others that are.
func (p place) justBefore() place {
	last := pgtype.UUID{Valid: true}
	for i := range last.Bytes {
		last.Bytes[i] = 0xff
	}
	return place{p.due.Add(-time.Microsecond), last} // Postgres' resolution
}

// newLevels begins with the priority that most jobs have, of each named type.
func newLevels(types map[string]Type) *levels {
	l := &levels{byKey: map[levelKey]*level{}, names: map[string]bool{}, asked: true}
	for name := range types {
		if name != DefaultType {
			l.names[name] = true
			l.add(levelKey{jobType: name})
		}
	}
	return l
}

func (l *levels) add(key levelKey) *level {
	added := &level{levelKey: key}
	l.byKey[key] = added
	l.rest = append(l.rest, added)
	return added
}

// levelClaim is what a claim by levels sends.
type levelClaim struct {
	levels     []*level
	types      []string // each with the most of it
	most       []int32
	others     []bool // those that share the room of the default handler
	levelTypes []string
	priorities []int32
	dues       []pgtype.Timestamptz
	ids        []pgtype.UUID
}

// claim chooses the levels of a claim: the first of those with due jobs, then those that had some last. By priority, as those
// that had none at the last walk may have some now.
func (l *levels) claim(w wants) (c levelClaim) {
	l.choose(&c, w)
	slices.SortStableFunc(c.levels, func(a, b *level) int { return cmp.Compare(b.priority, a.priority) })
	for _, one := range c.levels {
		c.add(one)
	}
	return c
}

func (l *levels) choose(c *levelClaim, w wants) {
	room := w.room()
	first := l.firsts(room)
	others := claimLevels - len(first)
	seen := map[string]bool{}
	for _, from := range [][]*level{l.due, l.rest} {
		for _, one := range from {
			if len(c.levels) == claimLevels {
				return
			}
			most, other := room(one.jobType)
			if most <= 0 || others == 0 && !first[one] {
				continue
			}
			if !first[one] {
				others--
			}
			if !seen[one.jobType] {
				seen[one.jobType] = true
				c.types, c.most, c.others = append(c.types, one.jobType), append(c.most, most), append(c.others, other)
			}
			c.levels = append(c.levels, one)
		}
	}
}

// firsts are the first levels of named types.
func (l *levels) firsts(room func(string) (int32, bool)) map[*level]bool {
	first, seen := map[*level]bool{}, map[string]bool{}
	for _, from := range [][]*level{l.due, l.rest} {
		for _, one := range from {
			if len(first) == firstLevels || len(seen) == len(l.names) {
				return first
			}
			if !l.names[one.jobType] || seen[one.jobType] {
				continue
			}
			seen[one.jobType] = true
			if most, _ := room(one.jobType); most > 0 {
				first[one] = true
			}
		}
	}
	return first
}

// more reports whether there are due jobs, as of the last walk, that there is room for.
func (l *levels) more(w wants) bool {
	room := w.room()
	return slices.ContainsFunc(l.due, func(one *level) bool {
		most, _ := room(one.jobType)
		return most > 0
	})
}

func (c *levelClaim) add(one *level) {
	c.levelTypes, c.priorities = append(c.levelTypes, one.jobType), append(c.priorities, one.priority)
	due, id := pgtype.Timestamptz{Time: one.after.due, Valid: true}, pgtype.UUID{Bytes: one.after.id.Bytes, Valid: true}
	if !one.behind {
		due.Time = due.Time.Add(-markLag)
	}
	if one.after.due.IsZero() || due.Time.Before(firstTime) {
		due = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	c.dues, c.ids = append(c.dues, due), append(c.ids, id)
}

// oneType reports whether all levels are of one type: then they are in order by themselves.
func (c *levelClaim) oneType() bool { return len(c.types) == 1 }

// note what a claim has taken. Full: it took all that there was room for.
func (l *levels) note(c levelClaim, claimed []*attempt, full bool, now time.Time) {
	took := make(map[string]int32, len(c.types))
	for _, a := range claimed {
		job := &a.job
		took[job.Type]++
		one := l.byKey[levelKey{job.Type, int32(job.Priority)}]
		if one == nil {
			continue
		}
		at := job.place()
		// A walk may have found jobs before the mark, which then starts anew.
		if one.after.before(at) {
			one.after = at
		}
	}
	empty := map[string]bool{}
	for i, name := range c.types {
		empty[name] = !full && took[name] < c.most[i]
	}
	for _, one := range c.levels {
		one.behind = !empty[one.jobType]
		if empty[one.jobType] && !one.head.After(now) {
			one.head = time.Time{}
		}
	}
	if len(l.due) > 0 {
		l.retire(empty, took)
	}
}

// retire moves levels that were claimed empty to the rest, those that had jobs to its front.
func (l *levels) retire(empty map[string]bool, took map[string]int32) {
	var had, hadNot []*level
	l.due = slices.DeleteFunc(l.due, func(one *level) bool {
		switch {
		case !empty[one.jobType] || !one.head.IsZero():
			return false
		case took[one.jobType] > 0:
			had = append(had, one)
		default:
			hadNot = append(hadNot, one)
		}
		return true
	})
	if len(had)+len(hadNot) > 0 {
		l.rest = slices.Concat(had, l.rest, hadNot)
		l.forget()
	}
}

// forget the last levels, where there are too many.
func (l *levels) forget() {
	l.due, l.rest = l.keep(l.due, keepDue), l.keep(l.rest, keepLevels)
}

func (l *levels) keep(list []*level, most int) []*level {
	if len(list) <= most {
		return list
	}
	seen := map[string]bool{}
	kept := list[:0]
	for i, one := range list {
		first := l.names[one.jobType] && !seen[one.jobType]
		seen[one.jobType] = true
		if i < most || first {
			kept = append(kept, one)
		} else {
			delete(l.byKey, one.levelKey)
		}
	}
	clear(list[len(kept):])
	return kept
}

// head is a level's first pending job, as a walk finds it.
type head struct {
	levelKey
	place
	in time.Duration // until it is due
}

// walkedOver takes what a step of a tour has found. At the end of the tour, those levels that covers says it went over, and that it has
// not found, are known to have no jobs. (Which types a single step has covered only the database can tell, by its collation.)
// It returns how long it is until the first of these jobs is due, not positive if one is.
func (l *levels) walkedOver(heads []head, t *tour, covers func(jobType string) bool, now time.Time) (next time.Duration) {
	next = farAhead
	for _, h := range heads {
		one := l.byKey[h.levelKey]
		if one == nil {
			one = l.add(h.levelKey)
		}
		one.head, one.seen = now.Add(h.in), now
		switch before := one.after.before(h.place); {
		case h.in > 0 && !before:
			one.after = place{} // the clock was set back; what becomes due before this job is still to come
		case h.in <= 0 && (!before || one.after.due.IsZero()):
			one.after, one.behind = h.place.justBefore(), true
		}
		next = min(next, h.in)
	}
	ended := len(heads) < walkStep
	var due, rest []*level
	for _, from := range [][]*level{l.due, l.rest} {
		for _, one := range from {
			if ended && one.seen.Before(t.began) && covers(one.jobType) {
				one.head = time.Time{}
			}
			if !one.head.IsZero() && !one.head.After(now) {
				due = append(due, one)
			} else {
				rest = append(rest, one)
			}
		}
	}
	slices.SortStableFunc(due, func(a, b *level) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), a.head.Compare(b.head), cmp.Compare(a.jobType, b.jobType))
	})
	l.due, l.rest = due, rest
	l.forget()
	if ended {
		*t = tour{}
	}
	return next
}

// nextHead is how long it is until the first job is due of the levels that there is room for, that c left out, and that a walk
// found jobs of.
func (l *levels) nextHead(c levelClaim, w wants, now time.Time) time.Duration {
	next := farAhead
	room := w.room()
	for _, from := range [][]*level{l.due, l.rest} {
		for _, one := range from {
			if one.head.IsZero() || slices.Contains(c.levels, one) {
				continue
			}
			if most, _ := room(one.jobType); most > 0 {
				next = min(next, one.head.Sub(now))
			}
		}
	}
	return next
}

// walkIn is how long to wait with the next walk, so that it comes at least rhythm after the last, and takes no more than its
// share of the time.
func (l *levels) walkIn(rhythm time.Duration, now time.Time) time.Duration {
	return l.walked.Add(max(rhythm, min(walkShare*l.took, maxWalkSpacing))).Sub(now)
}
