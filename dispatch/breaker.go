package dispatch

import (
	"math/rand/v2"
	"time"
)

const (
	breakerBase = time.Second
	breakerCap  = time.Minute
	// breakerForget is how long a breaker whose type has no jobs is kept.
	breakerForget = 10 * time.Minute
	// maxRetryAfter bounds how long a handler may ask to be left alone.
	maxRetryAfter = time.Hour
	// maxBreakers is how many types of the default handler have a breaker each. Beyond, one stands for all the others: types are
	// what whoever inserts makes them, and the handler that can't be reached is the same.
	maxBreakers = 100
	// otherTypes is its name among them: no type has it.
	otherTypes = ""
)

// breaker keeps a type's jobs pending while its handler can't be reached. It exists only as long as that is so: opened by
// the first Unavailable, it lets a single job through as a probe when probeAt has come, and any other answer ends it.
type breaker struct {
	failures int
	openedAt time.Time
	probeAt  time.Time
	probing  bool
}

// open notes an Unavailable of an attempt that was claimed then. Attempts that were under way when the breaker opened say
// nothing new. It returns how long no job is let through.
func (b *breaker) open(now, claimed time.Time, delay time.Duration) time.Duration {
	if b.failures > 0 && claimed.Before(b.openedAt) {
		return max(b.probeAt.Sub(now), 0)
	}
	b.failures++
	b.openedAt = now
	b.probing = false
	backoff := min(breakerBase<<min(b.failures-1, 10), breakerCap)
	backoff += time.Duration(rand.Float64() * float64(backoff) / 10)
	b.probeAt = now.Add(max(delay, backoff))
	return b.probeAt.Sub(now)
}

// room is how many jobs it lets through, and notes in w what is left out for it.
func (b *breaker) room(now time.Time, w *wants) int {
	if !b.probing && !now.Before(b.probeAt) {
		return 1
	}
	w.limited = true
	if !b.probing && (w.probeAt.IsZero() || b.probeAt.Before(w.probeAt)) {
		w.probeAt = b.probeAt
	}
	return 0
}
