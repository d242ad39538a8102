package chaos

import (
	"context"
	"os/exec"
	"time"
)

const (
	// feelEvery is how often it is measured how long the machine takes to start a program.
	feelEvery = 500 * time.Millisecond
	// patience is by how many times the worst of it all allowed times are stretched.
	patience = 3
)

// feelStrain returns, when ctx is done, the longest time that it took to start a program that does nothing: some milliseconds
// on a machine that has time for these tests. One that hasn't is no fault of what is tested.
func feelStrain(ctx context.Context) (worst time.Duration) {
	for {
		began := time.Now()
		if err := exec.CommandContext(ctx, "true").Run(); err != nil {
			return worst // ctx is done, or there is no such program
		}
		worst = max(worst, time.Since(began))
		if pause(ctx, feelEvery) != nil {
			return worst
		}
	}
}

// stretched is what is allowed on a machine under strain.
func (a Allowed) stretched(strain time.Duration) Allowed {
	for _, limit := range []*time.Duration{&a.Late, &a.Recovery, &a.RecoveryP50, &a.Resume} {
		if *limit > 0 {
			*limit += patience * strain
		}
	}
	return a
}
