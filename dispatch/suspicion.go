package dispatch

import "time"

// suspicions are what the reaper remembers of the workers that held jobs at its last look.
//
// That a heartbeat is old is concluded from its not changing, by our own clock, and never from the time that it has: the
// database's clock may be stepped, or be another one since a standby took over. A worker's lease runs from when it sent its last
// heartbeat, which was before we first saw it, so that it ends for the worker itself sooner than for us.
type suspicions map[int32]suspicion

type suspicion struct {
	heartbeat time.Time // by the database's clock
	since     time.Time // of the first look that saw it
	absent    time.Time // of the first look since then that missed the worker's presence, as all after it did; zero if the last one did not
}

// note adds what a look has seen of a worker, to what is remembered.
func (s suspicions) note(seen suspect, now time.Time) suspicion {
	known, again := s[seen.worker]
	if !again || !known.heartbeat.Equal(seen.heartbeat) {
		known = suspicion{heartbeat: seen.heartbeat, since: now}
	}
	if !seen.absent {
		known.absent = time.Time{}
	} else if known.absent.IsZero() {
		known.absent = now
	}
	s[seen.worker] = known
	return known
}

// blinded forgets who was absent: what was missed while the database was out of reach proves nothing. Heartbeats that have not changed
// in that time do.
func (s suspicions) blinded() {
	for worker, known := range s {
		known.absent = time.Time{}
		s[worker] = known
	}
}

// keep forgets all but these.
func (s suspicions) keep(seen []suspect) {
	stay := make(map[int32]bool, len(seen))
	for _, one := range seen {
		stay[one.worker] = true
	}
	for worker := range s {
		if !stay[worker] {
			delete(s, worker)
		}
	}
}

// verdictIn is how long it is until the worker is dead, if nothing changes: not positive if it is.
func (s suspicion) verdictIn(seen suspect, now time.Time) (left time.Duration, expired bool) {
	left = seen.leaseTime - now.Sub(s.since)
	if expired = left <= 0; expired || s.absent.IsZero() {
		return left, expired
	}
	return min(left, seen.deadAfter-now.Sub(s.absent)), false
}
