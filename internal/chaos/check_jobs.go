package chaos

import "slices"

// checkFate: each committed job ended in the right final state; what was rolled back isn't there, and never ran.
func (c *checker) checkFate(s *story) {
	c.figures.Runs += len(s.runs)
	switch {
	case s.fate == RolledBack:
		if s.row != nil || len(s.runs) > 0 {
			c.breach(s, Ghost, "job %d was rolled back", s.spec.Number)
		}
		return
	case s.fate == "":
		c.breach(s, Ghost, "job %d was inserted by nobody, or twice", s.spec.Number)
		return
	case s.row == nil:
		if s.fate == Committed {
			c.breach(s, Lost, "job %d has no row", s.spec.Number)
		}
		return
	}
	c.figures.Jobs++
	switch row := s.row; {
	case row.Status == statusPending || row.Status == statusProcessing:
		c.breach(s, Lost, "job %d is still %s", s.spec.Number, row.Status)
	case row.Status != s.spec.wants():
		c.breach(s, WrongEnd, "job %d is %s, not %s", s.spec.Number, row.Status, s.spec.wants())
	case row.Lease != "" || row.Held || !row.Completed:
		c.breach(s, WrongEnd, "job %d has ended, and still has a holder, or no time of its end", s.spec.Number)
	case row.Status == statusFailed && row.Error == "":
		c.breach(s, WrongEnd, "job %d has failed without an error", s.spec.Number)
	}
}

// checkLeases: a lease is claimed once, by a pending job, and ends once, before the next one begins; nothing leaves a
// final state; and a result is the current lease's.
func (c *checker) checkLeases(s *story) {
	lease, status := "", statusPending
	var seen []string
	for _, t := range s.changes {
		if t.OldStatus != status || t.OldLease != lease {
			c.breach(s, BadFence, "job %d changed unseen", s.spec.Number)
		}
		switch {
		case t.claims():
			if t.OldStatus != statusPending || slices.Contains(seen, t.NewLease) {
				c.breach(s, BadFence, "job %d was claimed while %s, or under an old lease", s.spec.Number, t.OldStatus)
			}
			seen = append(seen, t.NewLease)
		case isFinal(t.OldStatus):
			c.breach(s, BadFence, "job %d left its final state", s.spec.Number)
		case t.leaves() && t.NewStatus == statusCompleted:
			c.checkCompletion(s, t)
		case t.leaves() && !t.reaped():
			c.checkReturn(s, t)
		}
		status, lease = t.NewStatus, t.NewLease
	}
	if s.row != nil && (s.row.Status != status || s.row.Lease != lease) {
		c.breach(s, BadFence, "job %d is %s, and was last seen to be %s", s.spec.Number, s.row.Status, status)
	}
	for _, r := range s.runs {
		if r.starts > 1 {
			c.breach(s, SentTwice, "job %d: lease %s was sent %d times", s.spec.Number, r.lease, r.starts)
		}
		if s.row != nil && !slices.Contains(seen, r.lease) {
			c.breach(s, BadFence, "job %d ran under lease %s, which was never claimed", s.spec.Number, r.lease)
		}
	}
}

func (c *checker) checkCompletion(s *story, t Transition) {
	if s.row.ResultLease != t.OldLease {
		c.breach(s, StaleSettle, "job %d has the result of lease %s, and was completed under %s", s.spec.Number, short(s.row.ResultLease), t.OldLease)
	}
	if r := s.ran(t.OldLease); r == nil || r.outcome != outcomeDone {
		c.breach(s, Unfounded, "job %d was completed under lease %s", s.spec.Number, t.OldLease)
	}
}

// checkReturn: who fails an attempt or gives it back is its holder, whose handler has ended. An old holder would note it
// under the lease of the new one, whose handler still runs.
func (c *checker) checkReturn(s *story, t Transition) {
	r := s.ran(t.OldLease)
	if r == nil || !r.ended || r.cancelled {
		return
	}
	if early := r.to.Sub(c.hostTime(t.At)); early > c.letGo() {
		c.breach(s, StaleSettle, "job %d was %s %s before its handler under lease %s ended", s.spec.Number, t.NewStatus, early, t.OldLease)
	}
}

func isFinal(status string) bool {
	return status == statusCompleted || status == statusFailed || status == statusCancelled
}

// checkAttempts: a claim counts one, the end of a lease gives it back or not, and whatever isn't given back has failed and
// is noted, or has completed the job.
func (c *checker) checkAttempts(s *story) {
	claimed := map[string]int{}
	attempts := 0
	for _, t := range s.changes {
		delta := t.NewAttempts - t.OldAttempts
		_, noted := s.errors[t.OldLease]
		switch {
		case t.claims():
			claimed[t.NewLease] = t.NewAttempts
			if delta != 1 {
				c.breach(s, Miscounted, "job %d: a claim counted %d attempts", s.spec.Number, delta)
			}
		case t.reaped():
			c.checkForgiven(s, t)
		case t.leaves() && delta != 0 && delta != -1, !t.leaves() && delta != 0:
			c.breach(s, Miscounted, "job %d: attempts %d -> %d", s.spec.Number, t.OldAttempts, t.NewAttempts)
		}
		if t.leaves() && delta >= 0 && !noted && (t.NewStatus == statusPending || t.NewStatus == statusFailed) {
			c.breach(s, Miscounted, "job %d: no row in job_errors for lease %s", s.spec.Number, t.OldLease)
		}
		attempts = t.NewAttempts
	}
	if s.row != nil && s.row.Attempts != attempts {
		c.breach(s, Miscounted, "job %d has %d attempts, not %d", s.spec.Number, s.row.Attempts, attempts)
	}
	for lease := range s.errors {
		if _, ok := claimed[lease]; !ok {
			c.breach(s, Miscounted, "job %d: job_errors has lease %s, which was never claimed", s.spec.Number, lease)
		}
	}
	for _, r := range s.runs {
		if n, ok := claimed[r.lease]; ok && n != r.attempt {
			c.breach(s, Miscounted, "job %d: the handler was told attempt %d, which is %d", s.spec.Number, r.attempt, n)
		}
	}
}

// checkForgiven: a job that died together with others gets its attempt back, unless it has but one; one that died alone pays
// for all its deaths.
func (c *checker) checkForgiven(s *story, t Transition) {
	want, how := t.OldAttempts-1, "together with others"
	if c.diedTogether[t.OldWorker] < 2 || s.row.MaxAttempts == 1 {
		want, how = max(t.OldAttempts, t.NewCrashes), "alone"
	}
	if t.NewAttempts != want {
		c.breach(s, Miscounted, "job %d died %s, and has %d attempts, not %d", s.spec.Number, how, t.NewAttempts, want)
	}
}

// checkAlone: from the second death on a job runs alone in its sidecar.
func (c *checker) checkAlone(s *story) {
	for _, t := range s.changes {
		r := s.ran(t.NewLease)
		if !t.claims() || t.OldCrashes < backsOffFrom || r == nil {
			continue
		}
		for _, other := range c.byProcess[r.process] {
			beside := earlier(r.to, other.to).Sub(later(r.from, other.from))
			if other.lease != r.lease && beside > 0 && (!other.cancelled || beside > c.letGo()) {
				c.breach(s, Company, "job %d, whose worker died %d times, ran for %s beside job %d", s.spec.Number, t.OldCrashes, beside, other.number)
			}
		}
	}
}
