package chaos

import (
	"context"
	"time"
)

// mixed draws each strike from those of the scenarios that take part.
func mixed(all []Scenario) Scenario {
	var strikes []func(context.Context, *World) error
	var prepare []func(context.Context, *World) error
	for _, scenario := range all {
		if !scenario.Mixed {
			continue
		}
		strikes = append(strikes, scenario.Strike)
		if scenario.Prepare != nil {
			prepare = append(prepare, scenario.Prepare)
		}
	}
	return Scenario{
		Name: "mixed", Title: "mixed faults, drawn at random", Sidecars: 4, Load: Load{Run: 300 * time.Millisecond},
		Lasts: 90 * time.Second, Full: time.Hour,
		Prepare: func(ctx context.Context, w *World) error {
			for _, each := range prepare {
				if err := each(ctx, w); err != nil {
					return err
				}
			}
			return nil
		},
		Strike: func(ctx context.Context, w *World) error { return strikes[w.Random.IntN(len(strikes))](ctx, w) },
		// A job may have to wait for one fault after the other.
		Allowed: Allowed{Late: time.Minute, Drain: 6 * time.Minute},
	}
}
