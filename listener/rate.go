package listener

import "time"

const (
	// rateWindow is the time over which the rate of rings is taken.
	rateWindow = 100 * time.Millisecond
	// hasty is by how much shorter it is taken by a sidecar that samples a flood: that few rings are enough for it then.
	hasty = 3
)

// rate remembers when the last rings came: as many as make the rate too high, if they came within rateWindow.
type rate struct {
	times []time.Time
	next  int
}

func newRate(perSecond float64) rate {
	return rate{times: make([]time.Time, max(hasty, int(perSecond*rateWindow.Seconds())))}
}

// add counts a ring and reports whether they come too fast, and whether so many of the last ones did.
func (r *rate) add(now time.Time) (fast, hastily bool) {
	count := len(r.times)
	oldest, recent := r.times[r.next], r.times[(r.next+count-count/hasty)%count]
	r.times[r.next] = now
	r.next = (r.next + 1) % count
	return within(now, oldest, rateWindow), within(now, recent, rateWindow/hasty)
}

func within(now, then time.Time, window time.Duration) bool {
	return !then.IsZero() && now.Sub(then) < window
}
