package chaos

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// story is all that is known of one job.
type story struct {
	spec      Spec
	fate      Kind // of its insert: Committed, RolledBack, Unknown
	committed time.Time
	row       *Row
	runs      []run // in the order of their starts
	changes   []Transition
	errors    map[string]FailedAttempt // by lease
}

// run is an attempt as its handler saw it.
type run struct {
	job, lease, process string
	attempt, number     int
	starts              int
	from, to            time.Time
	ended, cancelled    bool
	outcome             string
}

// life of a process.
type life struct {
	name               string
	pid                int
	up, stopping, down time.Time
	exit               string
}

// index is Facts in an order that can be asked.
type index struct {
	facts   *Facts
	stories []*story // by number, in order; then rows that nobody intended
	byID    map[string]*story
	lives   map[string]*life
	faults  []*struckFault
	workers map[int]string // process names
	clocks  []Event
	// diedTogether is how many jobs died with a worker.
	diedTogether map[int]int
	byProcess    map[string][]*run
}

func newIndex(facts *Facts) *index {
	x := &index{facts: facts, byID: map[string]*story{}, lives: map[string]*life{}, workers: map[int]string{},
		diedTogether: map[int]int{}, byProcess: map[string][]*run{}}
	x.readProducers()
	x.readTables()
	x.readProcesses()
	x.readRuns()
	return x
}

func (x *index) readProducers() {
	byNumber := map[int]*story{}
	for _, event := range x.facts.Events {
		for _, spec := range event.Jobs {
			s := byNumber[spec.Number]
			if s == nil {
				s = &story{spec: spec, fate: Unknown, errors: map[string]FailedAttempt{}}
				byNumber[spec.Number] = s
				x.stories = append(x.stories, s)
			}
			if event.Kind != Intended {
				s.fate = event.Kind
			}
			if event.Kind == Committed {
				s.committed = event.At
			}
		}
	}
	for i := range x.facts.Jobs {
		row := &x.facts.Jobs[i]
		s := byNumber[row.Number]
		if s == nil || s.row != nil {
			s = &story{spec: Spec{Number: row.Number, Type: row.Type}, errors: map[string]FailedAttempt{}}
			x.stories = append(x.stories, s)
		}
		s.row = row
		x.byID[row.ID] = s
	}
}

func (x *index) readTables() {
	taken := map[string]bool{}
	for _, failed := range x.facts.Errors {
		taken[failed.Lease] = strings.HasPrefix(failed.Error, diedPrefix)
	}
	for _, change := range x.facts.Transitions {
		change.taken = taken[change.OldLease]
		if change.reaped() {
			x.diedTogether[change.OldWorker]++
		}
		if s := x.byID[change.Job]; s != nil {
			s.changes = append(s.changes, change)
		}
	}
	for _, failed := range x.facts.Errors {
		if s := x.byID[failed.Job]; s != nil {
			s.errors[failed.Lease] = failed
		}
	}
}

func (x *index) readProcesses() {
	for _, event := range x.facts.Events {
		switch event.Kind {
		case Up:
			x.lives[event.Process] = &life{name: event.Process, pid: event.PID, up: event.At}
		case Stopping, Down:
			l := x.lives[event.Process]
			if l == nil {
				continue
			}
			if event.Kind == Stopping && l.stopping.IsZero() {
				l.stopping = event.At
			} else if event.Kind == Down {
				l.down, l.exit = event.At, event.Exit
			}
		case Struck:
			x.faults = append(x.faults, &struckFault{Fault: *event.Fault, from: event.At, to: farFuture})
		case Relieved:
			for _, fault := range x.faults {
				if fault.ID == event.Fault.ID {
					fault.to = event.At
				}
			}
		case Clock:
			x.clocks = append(x.clocks, event)
		}
	}
	for _, worker := range x.facts.Workers {
		_, text, _ := strings.Cut(worker.Name, ":")
		pid, err := strconv.Atoi(text)
		for _, l := range x.lives {
			if err == nil && l.pid == pid {
				x.workers[worker.ID] = l.name
			}
		}
	}
}

var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func (x *index) readRuns() {
	byLease := map[string]*run{}
	var all []*run
	for _, event := range x.facts.Events {
		r := byLease[event.Lease]
		switch event.Kind {
		case Started:
			if r == nil {
				r = &run{job: event.Job, lease: event.Lease, process: event.Process, attempt: event.Attempt, number: event.Number, from: event.At}
				byLease[event.Lease] = r
				all = append(all, r)
			}
			r.starts++
		case Alive:
			if r != nil {
				r.to = event.At
			}
		case Ended:
			if r != nil {
				r.to, r.ended, r.outcome, r.cancelled = event.At, true, event.Outcome, event.Cancelled
			}
		}
	}
	for _, r := range all {
		s := x.byID[r.job]
		if s == nil {
			s = &story{spec: Spec{Number: r.number}, fate: RolledBack, errors: map[string]FailedAttempt{}}
			x.byID[r.job] = s
			x.stories = append(x.stories, s)
		}
		switch {
		case !r.to.IsZero():
		case s.spec.Type == typeScript: // killed before its first tick
			r.to = r.from
		default:
			r.to = x.cutOff(r.from)
		}
		s.runs = append(s.runs, *r)
		x.byProcess[r.process] = append(x.byProcess[r.process], r)
	}
	for _, s := range x.stories {
		slices.SortStableFunc(s.runs, func(a, b run) int { return a.from.Compare(b.from) })
	}
}

// cutOff is when the application died in which an attempt began that has no end.
func (x *index) cutOff(from time.Time) time.Time {
	for _, l := range x.lives {
		if strings.HasPrefix(l.name, "app.") && !from.Before(l.up) && !l.down.IsZero() && !from.After(l.down) {
			return l.down
		}
	}
	return from
}

// hostTime of a time by the database's clock. Steps are by more than a scenario lasts, so that no two offsets explain it, save
// for the moment of the step itself.
func (x *index) hostTime(at time.Time) time.Time {
	until := farFuture
	for _, event := range slices.Backward(x.clocks) {
		if host := at.Add(-event.Offset); !host.Before(event.At) && host.Before(until) {
			return host
		}
		until = event.At
	}
	return at
}

// ran returns the run of a lease; nil if its handler never saw it.
func (s *story) ran(lease string) *run {
	for i := range s.runs {
		if s.runs[i].lease == lease {
			return &s.runs[i]
		}
	}
	return nil
}

// after returns the first run that starts after a change, and how many workers had died with the job by then.
func (s *story) after(change int) (next *run, crashes int) {
	for _, later := range s.changes[change+1:] {
		if later.claims() {
			if r := s.ran(later.NewLease); r != nil {
				return r, later.OldCrashes
			}
		}
	}
	return nil, 0
}

// diedPrefix is how job_errors begins to tell of a worker's death.
const diedPrefix = "worker "

// reaped says whether a transition takes a lease from its holder. That isn't counted where the job only waited to run alone.
func (t Transition) reaped() bool { return t.leaves() && (t.taken || t.NewCrashes > t.OldCrashes) }

// reapOf returns the transition that took a lease away, if one did.
func (s *story) reapOf(lease string) *Transition {
	for i := range s.changes {
		if s.changes[i].OldLease == lease && s.changes[i].reaped() {
			return &s.changes[i]
		}
	}
	return nil
}
