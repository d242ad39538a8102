package listener

import "time"

// rateWindow is the time over which the rate of rings is taken.
const rateWindow = 100 * time.Millisecond

// rate remembers when the last rings came: as many as make the rate too high, if they came within rateWindow.
type rate struct {
	times []time.Time
	next  int
}

func newRate(perSecond float64) rate {
	return rate{times: make([]time.Time, max(2, int(perSecond*rateWindow.Seconds())))}
}

// add counts a ring and reports whether they come too fast.
func (r *rate) add(now time.Time) (fast bool) {
	oldest := r.times[r.next]
	r.times[r.next] = now
	r.next = (r.next + 1) % len(r.times)
	return !oldest.IsZero() && now.Sub(oldest) < rateWindow
}
