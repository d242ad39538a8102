package listener

import (
	"testing"
	"time"
)

// clock drives a slumber by hand, with the defaults.
type clock struct {
	*slumber
	now           time.Time
	rings, nudges int
}

func newClock(t *testing.T) *clock {
	t.Helper()
	config := Config{URL: "postgres://127.0.0.1/db"}
	l, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{now: time.Now()}
	c.slumber = newSlumber(l.config, l.metrics, func() { c.rings++ }, func() { c.nudges++ })
	return c
}

// flood rings count times, every pause.
func (c *clock) flood(count int, pause time.Duration) {
	for range count {
		c.now = c.now.Add(pause)
		c.rang(c.now)
	}
}

func (c *clock) sleep(t *testing.T) {
	t.Helper()
	c.fallAsleep(time.Time{}, c.now)
	if !c.shouldHold(true) {
		t.Fatal("S is not asked for")
	}
	c.taken(false, c.now)
	if _, stands := c.stands(1, c.now); !stands {
		t.Fatal("not asleep")
	}
}

func (c *clock) asleep() bool {
	_, stands := c.stands(1, c.now)
	return stands
}

func TestRateWakes(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	c.sleep(t)
	c.flood(500, 4*time.Millisecond) // 250 a second
	if !c.asleep() {
		t.Fatal("awake by rare rings")
	}
	c.now = c.now.Add(time.Second)
	c.flood(29, time.Millisecond)
	if !c.asleep() {
		t.Error("awake by 29 rings")
	}
	before := c.rings
	c.flood(20, time.Millisecond)
	if c.asleep() || c.rings == before {
		t.Error("asleep though rings come too fast, or the Dispatcher wasn't told")
	}
	if c.restless() {
		t.Error("restless after a long sleep")
	}
	// S is held until the bell connection has released it, and not for an instant longer.
	if c.shouldHold(true) {
		t.Error("S should be held still")
	}
	if held, _, _ := c.slumber.now(); held {
		t.Error("S counts as held while it is released")
	}
}

// A flood for others: the sleeps that sample it get rare, and a long one sets that back.
func TestShortSleepsGetRare(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	samples, begun := 0, c.now
	for c.now.Sub(begun) < 10*time.Minute {
		c.fallAsleep(time.Time{}, c.now)
		if c.shouldHold(true) {
			c.taken(false, c.now)
			samples++
			c.flood(11, time.Millisecond)
			if samples == 1 {
				c.flood(20, time.Millisecond)
			}
			c.shouldHold(true)
		}
		c.now = c.now.Add(time.Millisecond)
	}
	if samples < 60 || samples > 75 {
		t.Errorf("%d sleeps in ten minutes of flood, want about one each 10 s and the first few", samples)
	}
	if !c.restless() {
		t.Error("not restless after short sleeps")
	}
	c.now = c.now.Add(10 * time.Second)
	c.sleep(t)
	c.now = c.now.Add(time.Second)
	c.flood(40, time.Millisecond)
	if c.asleep() || c.restless() {
		t.Error("a long sleep did not set the wait back")
	}
	c.now = c.now.Add(rateWindow)
	c.shouldHold(true)
	c.sleep(t)
}

func TestQuietBeforeSleep(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	c.fallAsleep(c.now, c.now.Add(19*time.Millisecond))
	if c.shouldHold(true) {
		t.Error("asleep 19 ms after work was found")
	}
	c.fallAsleep(c.now, c.now.Add(20*time.Millisecond))
	if !c.shouldHold(true) || c.nudges != 1 {
		t.Errorf("awake after 20 ms without work, %d nudges", c.nudges)
	}
}

// A Dispatcher that is busy lets S go only if that spares rings.
func TestBusyLetsGo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		rings  int
		pause  time.Duration
		asleep bool
	}{
		{"nobody rings", 0, 0, true},
		{"a few rings in a long time", 9, time.Second, true},
		{"many rings in a short time", 12, 4 * time.Millisecond, true},
		{"rings for a while", 12, 10 * time.Millisecond, false},
	} {
		c := newClock(t)
		c.sleep(t)
		c.busy(c.now)
		c.flood(test.rings, test.pause)
		if c.asleep() != test.asleep {
			t.Errorf("%s: asleep %v", test.name, !test.asleep)
		}
		if !c.needed() || c.needed() {
			t.Errorf("%s: needed is to be told once", test.name)
		}
		c.flood(12, 10*time.Millisecond)
		if c.asleep() != test.asleep {
			t.Errorf("%s: let go though the rings are needed", test.name)
		}
	}
}

func TestFullQueueWakes(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	c.sleep(t)
	for _, step := range []struct {
		usage         float64
		full, changed bool
	}{{0.4, false, false}, {0.6, true, true}, {0.3, true, false}, {0.2, false, true}, {0.4, false, false}} {
		full, changed := c.queued(step.usage)
		if full != step.full || changed != step.changed {
			t.Errorf("at %.1f: full %v, changed %v", step.usage, full, changed)
		}
		if full && c.asleep() {
			t.Error("asleep with a full queue")
		}
		c.fallAsleep(time.Time{}, c.now)
		if full == c.shouldHold(true) {
			t.Errorf("at %.1f: S asked for: %v", step.usage, full)
		}
	}
}

// The end of each transaction that held U is told, and after the last one rows are to be looked for again.
func TestWaitingForHolders(t *testing.T) {
	t.Parallel()
	c := newClock(t)
	c.fallAsleep(time.Time{}, c.now)
	c.taken(true, c.now)
	if c.asleep() {
		t.Error("Sleep returns at once though transactions hold U")
	}
	c.now = c.now.Add(watchAfter)
	first, stands := c.stands(1, c.now)
	if !stands {
		t.Error("Sleep doesn't return while a transaction is open for long")
	}
	c.ended(false, c.now)
	if state, _ := c.stands(1, c.now); c.rings != 1 || state != first {
		t.Errorf("%d rings, state %v, was %v", c.rings, state, first)
	}
	c.ended(true, c.now)
	if state, _ := c.stands(1, c.now); c.rings != 2 || state == first {
		t.Errorf("%d rings, state %v as before", c.rings, state)
	}
}

func TestRemaining(t *testing.T) {
	t.Parallel()
	type holders = map[string]int32
	for _, test := range []struct {
		name            string
		before, present holders
		left            int
		ended           bool
	}{
		{"none has ended", holders{"3/1": 10, "4/1": 11}, holders{"3/1": 10, "4/1": 11, "5/1": 12}, 2, false},
		{"one has", holders{"3/1": 10, "4/1": 11}, holders{"3/1": 10, "5/1": 12}, 1, true},
		{"all have", holders{"3/1": 10}, holders{"3/2": 10}, 0, true},
		{"prepared, by its old name", holders{"3/1": 10}, holders{"3/1": 0}, 1, false},
		{"prepared, by another name", holders{"3/1": 10}, holders{"-1/77": 0, "3/2": 10}, 1, true},
		{"prepared has ended", holders{"-1/77": 0}, holders{}, 0, true},
	} {
		left, ended := remaining(test.before, test.present)
		if len(left) != test.left || ended != test.ended {
			t.Errorf("%s: left %v, ended %v", test.name, left, ended)
		}
	}
}

func TestPollingGetsRare(t *testing.T) {
	t.Parallel()
	p := polling{min: time.Millisecond, max: 25 * time.Millisecond}
	p.reset()
	polls, spent := 0, time.Duration(0)
	for ; spent < time.Second; polls++ {
		spent += p.interval
		p.found(false)
	}
	if polls < 60 || polls > 80 || p.interval != p.max {
		t.Errorf("%d polls in the first second, interval %s", polls, p.interval)
	}
	if p.found(true); p.interval != p.min {
		t.Errorf("interval %s after work was found", p.interval)
	}
}
