package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaseTime is the sidecars' default.
const leaseTime = 15 * time.Second

// processScenarios are those of the sidecars' and the application's processes.
var processScenarios = []Scenario{
	{
		Name: "kill", Title: "a sidecar is killed (SIGKILL), others take over", Mixed: true,
		Load: Load{Run: 500 * time.Millisecond}, Strike: killAny,
		// Late: a job whose workers died twice, by chance, runs alone, for up to 8 s, after those that are running.
		Allowed: Allowed{RecoveryP50: 2500 * time.Millisecond, Recovery: 5 * time.Second, Late: 18 * time.Second},
	},
	{
		Name: "kill-only", Title: "the only sidecar is killed, and started again by its supervisor", Sidecars: 1, Supervised: true,
		Load: Load{Run: 200 * time.Millisecond}, Strike: killSupervised,
		// Rarely enough that few jobs lose two workers and have to run alone: with one sidecar, all others wait for that.
		Pause: [2]time.Duration{9 * time.Second, 16 * time.Second},
		// Late: the supervisor's second, the start, and the recovery; or such jobs.
		Allowed: Allowed{RecoveryP50: 2500 * time.Millisecond, Recovery: 18 * time.Second, Late: 30 * time.Second},
	},
	{
		Name: "stop", Title: "a sidecar is stopped (SIGSTOP) for longer than its lease, and goes on", Mixed: true,
		Load: Load{Run: 300 * time.Millisecond}, Strike: stopForLong, Cold: true, Lasts: 45 * time.Second,
		Allowed: Allowed{Recovery: leaseTime + 5*time.Second, Late: leaseTime + 6*time.Second},
	},
	{
		Name: "pause", Title: "a sidecar is stopped for less than its lease: nothing is taken from it", Mixed: true,
		Strike: stopForShort, Cold: true, Allowed: Allowed{Late: 10 * time.Second},
	},
	{
		Name: "term", Title: "SIGTERM storms: some or all sidecars end and come back, again and again", Mixed: true,
		Strike: storm, Pause: [2]time.Duration{time.Millisecond, 2 * time.Second}, Allowed: Allowed{Late: 10 * time.Second},
	},
	{
		Name: "rolling", Title: "ten sidecars restarted in turn", Sidecars: 10, Load: Load{Rate: 50},
		Strike: restartInTurn, Cold: true, Allowed: Allowed{Late: 2 * time.Second},
	},
	{
		Name: "endpoint", Title: "the webhooks' endpoint is killed, and comes back after 1 to 4 s", Mixed: true,
		// The breakers' probes come after 1, 2 and 4 s: a second fault is not to prolong what the first one began.
		Strike: killEndpoint, Cold: true, Pause: [2]time.Duration{9 * time.Second, 13 * time.Second}, Lasts: 40 * time.Second,
		Allowed: Allowed{Late: 12 * time.Second},
	},
	{
		Name: "poison", Title: "jobs that kill their sidecar, among others, with a supervisor", Supervised: true,
		Load:    Load{Poison: 5, Run: 300 * time.Millisecond},
		Allowed: Allowed{RecoveryP50: 2500 * time.Millisecond, Recovery: 5 * time.Second},
	},
	{
		Name: "horizon", Title: "a long transaction is open throughout, and sidecars are killed", Load: Load{Rate: 60},
		Prepare: holdHorizon, Strike: killAny,
		Allowed: Allowed{RecoveryP50: 2500 * time.Millisecond, Recovery: 5 * time.Second},
	},
}

// killAny kills a sidecar and starts it again, before or after others have taken over.
func killAny(ctx context.Context, w *World) error {
	victim := w.Any()
	strike, err := w.Begin(Fault{What: "SIGKILL", Whom: []string{victim.Name()}, Kills: true})
	if err != nil {
		return err
	}
	if err := errors.Join(victim.Kill(), strike.End()); err != nil {
		return err
	}
	if err := pause(ctx, w.Between(0, 6*time.Second)); err != nil {
		return err
	}
	return victim.restart(ctx)
}

// killSupervised kills a sidecar. Recovery counts from when its next process is up.
func killSupervised(ctx context.Context, w *World) error {
	victim := w.Any()
	killed := victim.Name()
	strike, err := w.Begin(Fault{What: "SIGKILL", Whom: []string{killed}, Kills: true, FromEnd: true})
	if err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for victim.Name() == killed || !victim.isReady(ctx) {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the supervisor: %w", err)
		}
	}
	return strike.End()
}

func stopForLong(ctx context.Context, w *World) error {
	return stopFor(ctx, w, w.Between(leaseTime+time.Second, leaseTime+8*time.Second), Fault{What: "SIGSTOP", Aftermath: 2 * time.Second})
}

// stopForShort: a heartbeat is at most 5 s old, so that 8 s later it is within the lease time.
func stopForShort(ctx context.Context, w *World) error {
	return stopFor(ctx, w, w.Between(100*time.Millisecond, 8*time.Second), Fault{What: "SIGSTOP", Harmless: true})
}

func stopFor(ctx context.Context, w *World, d time.Duration, fault Fault) error {
	victim := w.Any()
	fault.Whom = []string{victim.Name()}
	strike, err := w.Begin(fault)
	if err != nil {
		return err
	}
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err = pause(ctx, d)
	return errors.Join(err, victim.Signal(syscall.SIGCONT), strike.End())
}

// storm ends some of the sidecars in order, or by a second signal at once, and starts them again.
func storm(ctx context.Context, w *World) error {
	victims := make([]*Sidecar, 0, len(w.Sidecars))
	for _, i := range w.Random.Perm(len(w.Sidecars))[:1+w.Random.IntN(len(w.Sidecars))] {
		victims = append(victims, w.Sidecars[i])
	}
	errs := make([]error, len(victims))
	var stopping sync.WaitGroup
	for i, victim := range victims {
		twice := w.Random.IntN(6) == 0
		patience := w.Between(0, 300*time.Millisecond)
		stopping.Go(func() { errs[i] = terminate(ctx, w, victim, twice, patience) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

func terminate(ctx context.Context, w *World, victim *Sidecar, twice bool, patience time.Duration) error {
	fault := Fault{What: "SIGTERM", Whom: []string{victim.Name()}, Harmless: true}
	if twice {
		fault.What, fault.Harmless, fault.Kills = "SIGTERM twice", false, true
	}
	strike, err := w.Begin(fault)
	if err != nil {
		return err
	}
	if twice {
		err = errors.Join(victim.Signal(syscall.SIGTERM), pause(ctx, patience), victim.Signal(syscall.SIGTERM), victim.process().await(stoppedWithin))
	} else {
		err = victim.Stop()
	}
	if err := errors.Join(err, strike.End()); err != nil {
		return err
	}
	return victim.restart(ctx)
}

func restartInTurn(ctx context.Context, w *World) error {
	for _, victim := range w.Sidecars {
		if err := terminate(ctx, w, victim, false, 0); err != nil {
			return err
		}
	}
	return nil
}

func killEndpoint(ctx context.Context, w *World) error {
	strike, err := w.Begin(Fault{What: "SIGKILL", Whom: []string{w.App.Name()}})
	if err != nil {
		return err
	}
	if err := w.App.Kill(); err != nil {
		return err
	}
	if err := pause(ctx, w.Between(time.Second, 4*time.Second)); err != nil {
		return err
	}
	return errors.Join(w.App.Start(ctx), strike.End())
}

// holdHorizon keeps vacuum from removing what is dead, until the scenario is over.
func holdHorizon(ctx context.Context, w *World) error {
	conn, err := pgx.Connect(ctx, w.URL())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	w.Cleanup(func() error { return conn.Close(context.WithoutCancel(ctx)) })
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if _, err := tx.Exec(ctx, holdHorizonSQL); err != nil {
		return fmt.Errorf("hold the horizon: %w", err)
	}
	_, err = w.Begin(Fault{What: "a long transaction", Harmless: true})
	return err
}
