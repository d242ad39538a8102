package chaos

import (
	"context"
	"time"

	"github.com/pgbell/pgbell/internal/postgres"
)

// Scenario is jobs under load while one kind of fault strikes at random moments.
type Scenario struct {
	// Name, for -scenarios and folders; Title, for people: what is done.
	Name, Title string
	// Sidecars that run; Defaults to 3.
	Sidecars int
	// Supervised sidecars are started again when they have ended.
	Supervised bool
	// Settings are lines of the sidecars' configuration, beside the defaults; Env their environment.
	Settings string
	Env      []string
	// Postgres says how the server is started.
	Postgres postgres.Options
	Load     Load
	// Host is called before the server starts, and may change how it is started: w.Scenario.Postgres. Where what it takes
	// isn't on this machine, it returns a Skip. May be nil.
	Host func(ctx context.Context, w *World) error
	// Prepare is called when the server runs, before the sidecars start. May be nil.
	Prepare func(ctx context.Context, w *World) error
	// Strike does the fault once and returns when it is over. It is called again and again, after pauses, while the
	// load goes on. May be nil.
	Strike func(ctx context.Context, w *World) error
	// Pause between strikes, at least and at most. Defaults to 3 s and 8 s.
	Pause [2]time.Duration
	// Lasts is how long strikes begin; the last one is finished. Defaults to 30 s, Full to 5 min, in the long form.
	Lasts, Full time.Duration
	// Cold: strikes begin at once, and not when the server has run for a lease time.
	Cold    bool
	Allowed Allowed
	// Mixed: Prepare and Strike also take part in the scenario of mixed faults.
	Mixed bool
}

// Load is what producers do.
type Load struct {
	// Rate of jobs per second. Defaults to 25.
	Rate float64
	// Run is the mean duration of a job. Defaults to 150 ms.
	Run time.Duration
	// Light jobs are short webhooks alone: for high rates.
	Light bool
	// Poison jobs in all, each of which kills its sidecar. Defaults to 0.
	Poison int
}

// Allowed is what a scenario may cost: more than that is a violation. On a machine that is short of time, more is allowed
// (feelStrain).
type Allowed struct {
	// Late is by how much a job's first start may come after it was due and committed. Defaults to 6 s.
	Late time.Duration
	// Recovery from a fault to the new start of a job that ran where it struck: the slowest, and the median. Defaults to
	// unlimited. Jobs whose worker died for the second time are not counted: they back off.
	Recovery, RecoveryP50 time.Duration
	// Drain is how long the last jobs may take after the last strike. Defaults to 4 min: jobs that back off come late.
	Drain time.Duration
	// Claiming within this time of the end of a fault that struck all. Defaults to unlimited.
	Resume time.Duration
}

// Skip is the error of a scenario that can't be run here, and says why.
type Skip struct{ Reason string }

func (s Skip) Error() string { return "skipped: " + s.Reason }

func (s Scenario) withDefaults() Scenario {
	defaultTo(&s.Sidecars, 3)
	defaultTo(&s.Pause, [2]time.Duration{3 * time.Second, 8 * time.Second})
	defaultTo(&s.Lasts, 30*time.Second)
	defaultTo(&s.Full, 5*time.Minute)
	defaultTo(&s.Load.Rate, 25)
	defaultTo(&s.Load.Run, 150*time.Millisecond)
	defaultTo(&s.Allowed.Late, 6*time.Second)
	defaultTo(&s.Allowed.Drain, 4*time.Minute)
	return s
}

func defaultTo[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// Scenarios are all that there are, the one that takes longest first.
func Scenarios() []Scenario {
	var all []Scenario
	for _, some := range [][]Scenario{processScenarios, faultScenarios, upgradeScenarios} {
		all = append(all, some...)
	}
	return append([]Scenario{mixed(all)}, all...)
}
