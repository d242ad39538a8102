package dispatch

import (
	"testing"
	"time"
)

// What a reaper concludes from the looks before, and from this one.
func TestVerdictOfLooks(t *testing.T) {
	t.Parallel()
	type look struct {
		after     time.Duration // the first, by our clock
		heartbeat time.Duration // by the database's
		absent    bool
		blind     bool // it failed
	}
	const hour = time.Hour
	for name, c := range map[string]struct {
		looks         []look
		dead, expired bool
	}{
		"a first look proves nothing":            {[]look{{0, -hour, true, false}}, false, false},
		"no heartbeat for a lease time":          {[]look{{0, 0, false, false}, {15 * time.Second, 0, false, false}}, true, true},
		"and not yet":                            {[]look{{0, 0, false, false}, {14 * time.Second, 0, false, false}}, false, false},
		"heartbeats by a clock that was set off": {[]look{{0, 0, false, false}, {14 * time.Second, -hour, false, false}, {28 * time.Second, hour, false, false}}, false, false},
		"a heartbeat from the future":            {[]look{{0, hour, false, false}, {15 * time.Second, hour, false, false}}, true, true},
		"absent for dead_after":                  {[]look{{0, 0, true, false}, {1500 * time.Millisecond, 0, true, false}}, true, false},
		"absent, with a heartbeat":               {[]look{{0, 0, true, false}, {1500 * time.Millisecond, 1, true, false}}, false, false},
		"absent, and back, and absent":           {[]look{{0, 0, true, false}, {time.Second, 0, false, false}, {2 * time.Second, 0, true, false}}, false, false},
		"absent from the second look on":         {[]look{{0, 0, false, false}, {time.Second, 0, true, false}, {2 * time.Second, 0, true, false}}, false, false},
		"absent around a look that failed":       {[]look{{0, 0, true, false}, {time.Second, 0, true, true}, {2 * time.Second, 0, true, false}}, false, false},
		"silent around a look that failed":       {[]look{{0, 0, false, false}, {time.Second, 0, false, true}, {15 * time.Second, 0, false, false}}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s := suspicions{}
			var left time.Duration
			var expired bool
			for _, l := range c.looks {
				if l.blind {
					s.blinded()
					continue
				}
				now := began.Add(l.after)
				seen := suspect{worker: 1, heartbeat: began.Add(l.heartbeat), leaseTime: 15 * time.Second, deadAfter: 1500 * time.Millisecond, absent: l.absent}
				s.keep([]suspect{seen})
				left, expired = s.note(seen, now).verdictIn(seen, now)
			}
			if dead := left <= 0; dead != c.dead || expired != c.expired {
				t.Errorf("dead %t, expired %t; %s left", dead, expired, left)
			}
			if s.keep(nil); len(s) != 0 {
				t.Error("a worker that holds nothing is remembered")
			}
		})
	}
}

// On a server that took over presence is missing until workers have found it, which says nothing of them.
func TestPresenceCountsForNothingAfterAFailover(t *testing.T) {
	t.Parallel()
	r := &reaper{}
	began := time.Now()
	primary, standby := began.Add(-time.Hour), began.Add(-30*time.Hour)
	for _, look := range []struct {
		after  time.Duration
		server time.Time
		moved  bool
	}{
		{0, primary, false}, {time.Second, primary, false},
		{2 * time.Second, standby, true}, {16 * time.Second, standby, true}, {17 * time.Second, standby, false},
		{18 * time.Second, primary, true},
	} {
		if got := r.justMoved(suspect{server: look.server, leaseTime: 15 * time.Second}, began.Add(look.after)); got != look.moved {
			t.Errorf("after %s: %t", look.after, got)
		}
	}
}
