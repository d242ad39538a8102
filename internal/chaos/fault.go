package chaos

import (
	"slices"
	"time"
)

// Fault is something that was done to a scenario, from At of its Struck event until that of its Relieved event.
type Fault struct {
	ID   int    `json:"id"`
	What string `json:"what"`
	// Whom it strikes: names of processes; empty: all sidecars, as when the database is gone.
	Whom []string `json:"whom,omitempty"`
	// Aftermath is for how long after its end those who were struck may still be taken for dead: what they need to come back.
	Aftermath time.Duration `json:"aftermath,omitempty"`
	// Harmless faults are no excuse for a reaped job: a sidecar that is struck by them works, and reaches the database.
	Harmless bool `json:"harmless,omitempty"`
	// Kills: a sidecar that is struck by it ends. All others live through their faults.
	Kills bool `json:"kills,omitempty"`
	// FromEnd: recovery is counted from the end of the fault, and not from its beginning.
	FromEnd bool `json:"from_end,omitempty"`
}

// struckFault is a fault with its times.
type struckFault struct {
	Fault
	from, to time.Time
}

func (f struckFault) hits(process string) bool {
	return len(f.Whom) == 0 || slices.Contains(f.Whom, process)
}

// excuses says whether a process that was struck may be taken for dead at a time.
func (f struckFault) excuses(process string, at time.Time) bool {
	return !f.Harmless && f.hits(process) && !at.Before(f.from) && !at.After(f.to.Add(f.Aftermath))
}

// since is when recovery begins.
func (f struckFault) since() time.Time {
	if f.FromEnd {
		return f.to
	}
	return f.from
}
