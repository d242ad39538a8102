package chaos

import "time"

// Violation is something that must not happen.
type Violation struct {
	What     string
	Job      string
	Evidence []string
}

// Figures of a scenario.
type Figures struct {
	Jobs, Faults, Reruns     int
	RecoveryP50, RecoveryMax time.Duration
}

// Check judges.
func Check(facts *Facts, allowed Allowed) ([]Violation, Figures) { return nil, Figures{} }
