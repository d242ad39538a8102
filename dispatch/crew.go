package dispatch

import (
	"slices"
	"sync"
)

// crew runs attempts, each at once, in as few goroutines as that takes: one that has ended its attempt takes the next that
// waits, and while any waits, one more goroutine is on its way. So handlers that block have a goroutine each, and of those
// that return at once a few do the work of thousands, on stacks that have grown already.
type crew struct {
	run     func(*attempt)
	running sync.WaitGroup // one for each attempt

	mu      sync.Mutex
	waiting []*attempt // in their order, from next on
	next    int
	coming  bool // a goroutine was started that has yet to take its first attempt
}

// start has the attempts run.
func (c *crew) start(batch []*attempt) {
	c.running.Add(len(batch))
	c.mu.Lock()
	if c.next > len(c.waiting)/2 { // what is behind next must not pile up where some always wait
		c.waiting, c.next = slices.Delete(c.waiting, 0, c.next), 0
	}
	c.waiting = append(c.waiting, batch...)
	call := !c.coming
	c.coming = true
	c.mu.Unlock()
	if call {
		go c.work() // running waits for what it takes, and it takes all that waits
	}
}

func (c *crew) work() {
	for a := c.take(true); a != nil; a = c.take(false) {
		c.run(a)
		c.running.Done()
	}
}

// take returns the next attempt that waits, nil if none does, and calls for one more goroutine if others wait. New: the
// caller is the one that was coming.
func (c *crew) take(isNew bool) *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isNew {
		c.coming = false
	}
	if c.next == len(c.waiting) {
		return nil
	}
	a := c.waiting[c.next]
	c.waiting[c.next] = nil
	if c.next++; c.next == len(c.waiting) {
		c.waiting, c.next = c.waiting[:0], 0
	} else if !c.coming {
		c.coming = true
		go c.work()
	}
	return a
}
