package dispatch

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Attempts that all wait for each other must all run at once.
func TestCrewRunsAllAtOnce(t *testing.T) {
	t.Parallel()
	const jobs = 500
	var met sync.WaitGroup
	met.Add(jobs)
	c := crew{run: func(*attempt) {
		met.Done()
		met.Wait()
	}}
	for range jobs / 50 {
		c.start(slices.Repeat([]*attempt{{}}, 50))
	}
	c.running.Wait()
}

func TestCrewRunsEachOnceFromManyStarts(t *testing.T) {
	t.Parallel()
	var runs [2000]atomic.Int32
	index := map[*attempt]int{}
	var batches [][]*attempt
	for i := range runs {
		if i%100 == 0 {
			batches = append(batches, nil)
		}
		a := &attempt{}
		index[a] = i
		batches[len(batches)-1] = append(batches[len(batches)-1], a)
	}
	c := crew{run: func(a *attempt) { runs[index[a]].Add(1) }}
	var starters sync.WaitGroup
	for _, batch := range batches {
		starters.Go(func() { c.start(batch) })
	}
	starters.Wait()
	c.running.Wait()
	for i := range runs {
		if n := runs[i].Load(); n != 1 {
			t.Fatalf("attempt %d ran %d times", i, n)
		}
	}
}

// Where some always wait, those that have been taken are forgotten.
func TestCrewForgetsWhatItHasTaken(t *testing.T) {
	t.Parallel()
	c := crew{coming: true} // none comes: the test takes them itself
	for range 10_000 {
		c.start([]*attempt{{}, {}})
		for len(c.waiting)-c.next > 1 {
			c.take(false)
		}
	}
	if room := cap(c.waiting); room > 100 {
		t.Errorf("room for %d attempts is kept, and one waits", room)
	}
}
