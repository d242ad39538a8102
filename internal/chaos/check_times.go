package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// letGo is how long a handler may go on after its sidecar has given it up and handed the job back: until the application
// sees that the connection is closed.
func (c *checker) letGo() time.Duration { return 500*time.Millisecond + patience*c.figures.Strain }

// backsOffFrom is the number of its workers' deaths from which on a job backs off, and runs alone.
const backsOffFrom = 2

// checkOverlaps: no attempt begins before those before it have ended, but where their lease was taken away first.
func (c *checker) checkOverlaps(s *story) {
	for i, later := range s.runs {
		for _, earlier := range s.runs[:i] {
			beside := earlier.to.Sub(later.from)
			switch {
			case beside <= 0 || earlier.cancelled && beside <= c.letGo():
			case s.reapOf(earlier.lease) != nil:
				c.figures.Overlaps++
				c.figures.Beside = append(c.figures.Beside, fmt.Sprintf("job %d (%s): attempt %d at %s ran on for %s beside attempt %d at %s",
					s.spec.Number, s.spec.Type, earlier.attempt, earlier.process, beside.Round(time.Millisecond), later.attempt, later.process))
			default:
				c.breach(s, Overlap, "job %d: lease %s ran for %s beside lease %s", s.spec.Number, earlier.lease, beside, later.lease)
			}
		}
	}
}

// orphanFor is how long the guard may take to end the children of a sidecar that is gone.
func (c *checker) orphanFor() time.Duration { return time.Second + patience*c.figures.Strain }

// checkOrphans: no subprocess goes on for long after its sidecar.
func (c *checker) checkOrphans(s *story) {
	for _, r := range s.runs {
		l := c.lives[r.process]
		if s.spec.Type == typeScript && l != nil && !l.down.IsZero() && r.to.Sub(l.down) > c.orphanFor() {
			c.breach(s, Orphan, "job %d ran %s longer than %s", s.spec.Number, r.to.Sub(l.down), r.process)
		}
	}
}

// checkReaps: only who was struck is taken for dead.
func (c *checker) checkReaps(s *story) {
	for _, t := range s.changes {
		if !t.reaped() {
			continue
		}
		c.figures.Reaped++
		name, at := c.workers[t.OldWorker], c.hostTime(t.At)
		l := c.lives[name]
		switch {
		case l == nil:
			c.breach(s, HealthyReap, "job %d was reaped from worker %d, whom nobody knows", s.spec.Number, t.OldWorker)
		case c.excused(name, at):
		case l.down.IsZero() || l.down.After(at):
			c.breach(s, HealthyReap, "job %d was reaped from %s", s.spec.Number, name)
		case !l.stopping.IsZero() && l.exit == exitedWell:
			c.breach(s, LeftBehind, "job %d was left behind by %s", s.spec.Number, name)
		}
	}
}

func (c *checker) excused(process string, at time.Time) bool {
	return slices.ContainsFunc(c.faults, func(f *struckFault) bool { return f.excuses(process, at) })
}

// checkLateness: a job starts soon after it was committed and is due; but not where it had to back off before, as two
// workers had died that had only claimed it.
func (c *checker) checkLateness(s *story) {
	if s.fate != Committed || len(s.runs) == 0 {
		return
	}
	for _, t := range s.changes {
		if t.NewLease == s.runs[0].lease && t.OldCrashes >= backsOffFrom {
			return
		}
	}
	late := s.runs[0].from.Sub(s.committed.Add(s.spec.Delay))
	c.figures.LateMax = max(c.figures.LateMax, late)
	if late > c.allowed.Late {
		c.breach(s, LateStart, "job %d started %s late", s.spec.Number, late.Round(time.Millisecond))
	}
}

// checkRecovery: whatever ran where a fault struck runs again soon.
func (c *checker) checkRecovery() {
	var all []time.Duration
	for _, s := range c.stories {
		for i, t := range s.changes {
			if !t.reaped() || t.NewStatus != statusPending {
				continue
			}
			next, crashes := s.after(i)
			fault := c.cause(c.workers[t.OldWorker], c.hostTime(t.At))
			switch {
			case next == nil || fault == nil:
			case crashes >= backsOffFrom:
				c.figures.BackedOff++
			default:
				took := next.from.Sub(fault.since())
				all = append(all, took)
				if c.allowed.Recovery > 0 && took > c.allowed.Recovery {
					c.breach(s, SlowRecovery, "job %d ran again %s after fault %d", s.spec.Number, took.Round(time.Millisecond), fault.ID)
				}
			}
		}
	}
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	c.figures.RecoveryP50, c.figures.RecoveryMax = all[len(all)/2], all[len(all)-1]
	if p50 := c.figures.RecoveryP50; c.allowed.RecoveryP50 > 0 && p50 > c.allowed.RecoveryP50 {
		c.breach(nil, SlowRecovery, "half of the jobs took %s or more", p50.Round(time.Millisecond))
	}
}

// cause is the last fault that hit a process before a time.
func (c *checker) cause(process string, at time.Time) *struckFault {
	var last *struckFault
	for _, f := range c.faults {
		if !f.Harmless && f.hits(process) && !f.from.After(at) && (last == nil || f.from.After(last.from)) {
			last = f
		}
	}
	return last
}

// checkResume: after a fault that struck all, jobs start again soon.
func (c *checker) checkResume() {
	for _, f := range c.faults {
		if len(f.Whom) > 0 || f.Harmless || f.to.Equal(farFuture) {
			continue
		}
		first := farFuture
		for _, event := range c.facts.Events {
			if event.Kind == Started && event.At.After(f.to) {
				first = event.At
				break
			}
		}
		if first.Equal(farFuture) {
			continue // the last fault, after which nothing was left to run
		}
		took := first.Sub(f.to)
		c.figures.Resume = max(c.figures.Resume, took)
		if c.allowed.Resume > 0 && took > c.allowed.Resume {
			c.breach(nil, SlowRecovery, "the first job started %s after the end of fault %d (%s)", took.Round(time.Millisecond), f.ID, f.What)
		}
	}
}

// exitedWell is what the system says of a process that ended with 0.
const exitedWell = "exit status 0"

// checkExits: a sidecar ends in order when it is asked to, and otherwise only by a fault that kills.
func (c *checker) checkExits() {
	for _, l := range c.lives {
		if !strings.HasPrefix(l.name, "sidecar") {
			continue
		}
		struck := slices.ContainsFunc(c.faults, func(f *struckFault) bool {
			return f.Kills && slices.Contains(f.Whom, l.name) && (l.down.IsZero() || !f.from.After(l.down))
		})
		switch {
		case struck:
		case l.down.IsZero():
			c.breach(nil, EndedBadly, "%s never ended", l.name)
		case l.stopping.IsZero():
			c.breach(nil, EndedBadly, "%s ended unasked: %s", l.name, l.exit)
		case l.exit != exitedWell:
			c.breach(nil, EndedBadly, "%s ended with %s after SIGTERM", l.name, l.exit)
		}
	}
}
