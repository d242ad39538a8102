package chaos

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config of a run.
type Config struct {
	// Pgbell is the program that is tested: the path of the real binary.
	Pgbell string
	// Released is the first release's program. Where there is no such file, the scenario that needs it is skipped.
	Released string
	// Program runs Child with the arguments that are added to it.
	Program []string
	// Seed draws faults and jobs. The same seed draws the same ones; when each of them hits is up to the machine.
	Seed uint64
	// Full runs the long form.
	Full bool
	// Lasts is for how long each scenario strikes. Defaults to its own.
	Lasts time.Duration
	// Keep leaves the folders of all scenarios, and not only of those that were violated.
	Keep bool
}

// Outcome of a scenario.
type Outcome struct {
	Scenario Scenario
	Took     time.Duration
	Figures  Figures
	// Violations are what must not happen, each with its evidence.
	Violations []Violation
	// Skipped is why it wasn't run; empty if it was.
	Skipped string
	// Err is why the scenario could not be run to its end; it counts as a violation.
	Err error
	// Folder with the history and the logs; empty if it was removed.
	Folder string
}

// OK says whether all held.
func (o Outcome) OK() bool { return o.Err == nil && len(o.Violations) == 0 }

// Run runs one scenario and checks what became of its jobs.
func Run(ctx context.Context, config Config, scenario Scenario) Outcome {
	began := time.Now()
	name := fnv.New64a()
	_, _ = name.Write([]byte(scenario.Name)) // never fails
	w := &World{Scenario: scenario.withDefaults(), config: config, program: config.Pgbell, Random: rand.New(rand.NewPCG(config.Seed, name.Sum64()))}
	outcome := Outcome{Scenario: w.Scenario}
	facts, err := w.play(ctx)
	if err == nil {
		outcome.Violations, outcome.Figures = Check(facts, w.Scenario.Allowed)
	}
	if skip, ok := errors.AsType[Skip](err); ok {
		outcome.Skipped, err = skip.Reason, nil
	}
	outcome.Err = err
	keep := config.Keep || !outcome.OK()
	if keep {
		outcome.Folder = w.folder
	}
	outcome.Err = errors.Join(outcome.Err, w.close(keep))
	outcome.Took = time.Since(began)
	return outcome
}

// play runs the scenario, and collects all that is known of it.
func (w *World) play(ctx context.Context) (*Facts, error) {
	if err := w.open(ctx); err != nil {
		return nil, err
	}
	feeling, stopFeeling := context.WithCancel(ctx)
	var strain time.Duration
	var senses sync.WaitGroup
	defer senses.Wait()
	defer stopFeeling()
	senses.Go(func() { strain = feelStrain(feeling) })
	supervising, stopSupervising := context.WithCancel(ctx)
	defer stopSupervising()
	var supervisors sync.WaitGroup
	supervisorErrs := make([]error, len(w.Sidecars))
	if w.Scenario.Supervised {
		for i, sidecar := range w.Sidecars {
			supervisors.Go(func() { supervisorErrs[i] = sidecar.supervise(supervising) })
		}
	}
	err := w.strikeUnderLoad(ctx)
	if err == nil {
		err = w.cleanUp() // what Prepare began is no fault of the drain
	}
	if err == nil {
		err = w.drain(ctx)
	}
	stopSupervising()
	supervisors.Wait()
	if err = errors.Join(append(supervisorErrs, err)...); err != nil {
		return nil, err
	}
	if err := w.stopProcesses(); err != nil {
		return nil, err
	}
	stopFeeling()
	senses.Wait()
	facts, err := w.collect(ctx)
	if err != nil {
		return nil, err
	}
	facts.Strain = strain
	return facts, nil
}

// strikeUnderLoad strikes again and again while jobs are inserted.
func (w *World) strikeUnderLoad(ctx context.Context) error {
	loading, stopLoading := context.WithCancel(ctx)
	defer stopLoading()
	// For a lease time after the database's start, sessions and presence locks are missing for another reason, and only
	// heartbeats count.
	warm := w.started
	if !w.Scenario.Cold {
		warm = warm.Add(leaseTime + time.Second)
	}
	load := w.Scenario.Load
	if load.Poison > 0 { // in the long form more of them, but more rarely: what died with them is to get its turn
		load.Poison *= max(1, int(w.lasts()/w.Scenario.Lasts)/3)
	}
	producing := producer{url: w.URL(), load: load, history: w.history, seed: w.Random.Uint64(),
		nextPoison: warm, poisonEvery: w.lasts() / time.Duration(load.Poison+1)}
	var producers sync.WaitGroup
	var producerErr error
	producers.Go(func() { producerErr = producing.run(loading) })
	err := pause(ctx, time.Until(warm))
	if err == nil {
		err = w.strikes(ctx)
	}
	stopLoading()
	producers.Wait()
	return errors.Join(err, producerErr)
}

func (w *World) lasts() time.Duration {
	switch {
	case w.config.Lasts > 0:
		return w.config.Lasts
	case w.config.Full:
		return w.Scenario.Full
	}
	return w.Scenario.Lasts
}

func (w *World) strikes(ctx context.Context) error {
	end := time.Now().Add(w.lasts())
	for struck := false; ; struck = true {
		gap := w.Between(w.Scenario.Pause[0], w.Scenario.Pause[1])
		left := time.Until(end)
		if err := pause(ctx, min(gap, max(left, 0))); err != nil {
			return err
		}
		if gap >= left {
			if !struck && w.Scenario.Strike != nil {
				return errors.New("no fault had time to strike: nothing is proven")
			}
			return nil
		}
		if w.Scenario.Strike == nil {
			continue
		}
		if err := w.Scenario.Strike(ctx, w); err != nil {
			return fmt.Errorf("strike: %w", err)
		}
	}
}

// drain returns when no job is left to run, or when that takes too long: the checker says which ones are. Jobs that back off, as their
// workers died, are made due: that may be minutes ahead.
func (w *World) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Scenario.Allowed.Drain)
	defer cancel()
	for {
		open, err := w.hasten(ctx)
		if err == nil && open == 0 || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// hasten makes due what backs off, and returns how many jobs are left.
func (w *World) hasten(ctx context.Context) (open int, err error) {
	conn, err := pgx.Connect(ctx, w.URL())
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, hastenSQL); err != nil {
		return 0, fmt.Errorf("make jobs due that back off: %w", err)
	}
	if err := conn.QueryRow(ctx, openSQL).Scan(&open); err != nil {
		return 0, fmt.Errorf("count open jobs: %w", err)
	}
	return open, nil
}
