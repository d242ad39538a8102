package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Breach is a kind of violation.
type Breach string

// What must not happen.
const (
	Lost         Breach = "lost"             // a committed job has no row, or no final state
	WrongEnd     Breach = "wrong end"        // or one that its handler didn't lead to
	Ghost        Breach = "ghost"            // a job that was rolled back is there, or ran, or one is there twice
	Overlap      Breach = "overlap"          // two attempts at a time, the first of which still had its lease
	SentTwice    Breach = "sent twice"       // one claim, two starts
	HealthyReap  Breach = "healthy reaped"   // the job of a sidecar that ran and reached the database
	LeftBehind   Breach = "left behind"      // by a sidecar that ended in order
	StaleSettle  Breach = "stale settle"     // by who had no longer the lease, or not the last one
	Unfounded    Breach = "unfounded settle" // completed, without its handler having said so
	BadFence     Breach = "bad lease"        // a lease that doesn't begin and end once, one after the other
	Miscounted   Breach = "attempts don't add up"
	LateStart    Breach = "late"
	SlowRecovery Breach = "slow recovery"
	Orphan       Breach = "orphan"      // a subprocess that outlives its sidecar
	Company      Breach = "in company"  // a job that may have killed two workers, beside others
	EndedBadly   Breach = "ended badly" // a sidecar, unasked or not in order
)

// Violation is something that must not happen, with its evidence.
type Violation struct {
	Breach   Breach
	Detail   string
	Evidence []string
}

// Figures of a scenario.
type Figures struct {
	Jobs, Runs, Faults int
	// Reaped leases, and of them those of jobs that back off, as a worker died under them for the second time.
	Reaped, BackedOff int
	// Overlaps of an attempt with the next one, after its lease was taken away.
	Overlaps int
	// Recovery from the fault to the new start, of the jobs that don't back off.
	RecoveryP50, RecoveryMax time.Duration
	// Resume is the slowest first start after the end of a fault that struck all.
	Resume  time.Duration
	LateMax time.Duration
	// Strain is how long the machine took at worst to start a program: allowed times are stretched by it.
	Strain time.Duration
	// Beside names the overlaps.
	Beside []string
	Breach map[Breach]int
}

// checker collects what it finds.
type checker struct {
	*index
	allowed    Allowed
	figures    Figures
	violations []Violation
}

// maxEvidence of a kind of violation: the others are only counted.
const maxEvidence = 3

// Check judges what is known of a scenario.
func Check(facts *Facts, allowed Allowed) ([]Violation, Figures) {
	c := &checker{index: newIndex(facts), allowed: allowed.stretched(facts.Strain), figures: Figures{Strain: facts.Strain, Breach: map[Breach]int{}}}
	c.figures.Faults = len(c.faults)
	for _, s := range c.stories {
		c.checkFate(s)
		c.checkLeases(s)
		c.checkAttempts(s)
		c.checkOverlaps(s)
		c.checkOrphans(s)
		c.checkReaps(s)
		c.checkAlone(s)
		c.checkLateness(s)
	}
	c.checkRecovery()
	c.checkResume()
	c.checkExits()
	return c.violations, c.figures
}

// breach notes a violation. s may be nil.
func (c *checker) breach(s *story, kind Breach, format string, arguments ...any) {
	c.figures.Breach[kind]++
	v := Violation{Breach: kind, Detail: fmt.Sprintf(format, arguments...)}
	if s != nil && c.figures.Breach[kind] <= maxEvidence {
		v.Evidence = c.evidence(s)
	}
	c.violations = append(c.violations, v)
}

// evidence is all that is known of a job, in the order of the times.
func (c *checker) evidence(s *story) []string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	add := func(at time.Time, format string, arguments ...any) {
		lines = append(lines, line{at, fmt.Sprintf(format, arguments...)})
	}
	id := ""
	if s.row != nil {
		id = s.row.ID
	}
	if !s.committed.IsZero() {
		add(s.committed, "committed: %+v", s.spec)
	}
	for _, r := range s.runs {
		add(r.from, "started: attempt %d, lease %s, %s", r.attempt, r.lease, r.process)
		add(r.to, "ended: lease %s, outcome %q, cancelled %t, noted %t", r.lease, r.outcome, r.cancelled, r.ended)
	}
	for _, t := range s.changes {
		add(c.hostTime(t.At), "audit: %s -> %s, lease %s -> %s, worker %s -> %s, attempts %d -> %d, crashes %d -> %d", t.OldStatus, t.NewStatus,
			short(t.OldLease), short(t.NewLease), c.worker(t.OldWorker), c.worker(t.NewWorker), t.OldAttempts, t.NewAttempts, t.OldCrashes, t.NewCrashes)
	}
	from, to := farFuture, time.Time{}
	for _, l := range lines {
		from, to = earlier(from, l.at), later(to, l.at)
	}
	for _, f := range c.faults {
		if f.from.Before(to) && f.to.Add(f.Aftermath).After(from) {
			add(f.from, "fault %d begins: %s of %s", f.ID, f.What, orAll(f.Whom))
			if f.to.Before(farFuture) {
				add(f.to, "fault %d is over", f.ID)
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	text := []string{fmt.Sprintf("job %s, number %d, %s", id, s.spec.Number, s.spec.Type)}
	for _, l := range lines {
		text = append(text, l.at.UTC().Format("15:04:05.000 ")+l.text)
	}
	for _, failed := range s.errors {
		text = append(text, fmt.Sprintf("job_errors: lease %s, attempt %d: %s", failed.Lease, failed.Attempt, failed.Error))
	}
	if s.row != nil {
		text = append(text, fmt.Sprintf("row: %+v", *s.row))
	}
	return text
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (c *checker) worker(id int) string {
	if id == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s)", id, c.workers[id])
}

func short(lease string) string {
	if lease == "" {
		return "none"
	}
	return lease
}

func orAll(whom []string) string {
	if len(whom) == 0 {
		return "all"
	}
	return strings.Join(whom, ", ")
}
