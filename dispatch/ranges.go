package dispatch

import (
	"math"
	"time"
)

const (
	rangePages   = 256                // 2 MB of the table
	pruneEvery   = 10 * time.Minute   // a range is not walked more often, whatever comes of age in it
	pruneSlack   = 50                 // what comes of age may wait for this part of its age, to be deleted with its neighbours
	mostSlack    = 6 * time.Hour      // but not for longer
	rangeUnknown = 24 * time.Hour     // a range is walked after that, as somebody may have changed times by hand
	neverRipe    = math.MaxInt64 >> 1 // a Duration
)

// table is what a survey tells of the jobs table.
type table struct {
	pages int64
	file  uint32 // another one, when the table was rewritten and its rows have moved
	turn  bool   // it is this sidecar that prunes
}

// ranges remembers when something in each range of the table's pages can come of age, so that nobody reads a range in
// vain: eight bytes for 2 MB. A row that ends later than the walk over its range comes of age a whole age later, so that
// bounds the time for any range, also for one that holds nothing but pending jobs, or nothing at all.
type ranges struct {
	file     uint32
	due      []time.Duration // on the caller's clock; the zero value: at once
	shortest time.Duration   // age of what is kept for the shortest time
}

func newRanges(keep Retention) *ranges {
	shortest := time.Duration(neverRipe)
	for _, age := range []time.Duration{keep.Completed, keep.Failed, keep.Cancelled} {
		if age >= 0 {
			shortest = min(shortest, age)
		}
	}
	return &ranges{shortest: shortest}
}

// nothing ever comes of age.
func (r *ranges) nothing() bool { return r.shortest == neverRipe }

// fit brings the map up to the table's size. What is known of a file says nothing of another.
func (r *ranges) fit(t table) {
	if r.file != t.file {
		r.file, r.due = t.file, nil
	}
	count := int((t.pages + rangePages - 1) / rangePages)
	r.due = append(r.due[:min(count, len(r.due))], make([]time.Duration, max(0, count-len(r.due)))...)
}

// walked notes that nothing ripe is left in a range, and what in it comes of age next: ripe, from now on.
func (r *ranges) walked(i int, now, ripe time.Duration) {
	slack := min(max(r.shortest/pruneSlack, pruneEvery), mostSlack)
	r.due[i] = now + max(slack, min(ripe, r.shortest, rangeUnknown))
}
