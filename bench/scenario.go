package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// scenario is one comparison.
type scenario struct {
	name, about string
	figures     []figure
	systems     func(settings) []system
}

// role is what a system is in a comparison.
type role string

const (
	ours  role = "pgbell"
	floor role = "floor"
	peer  role = "peer"
	// aside is a pgbell that doesn't do what the others do, and is no measure for them.
	aside role = "aside"
)

// system is one way to do the scenario's work.
type system struct {
	name, tuning string
	role         role
	template     template
	// ready says errMissing where the system can't run. Nil means that it always can.
	ready func(context.Context) error
	// run does the work of one round and returns the figures that it measured.
	run func(context.Context, round) (figures, error)
	// grid marks variants of one system: all but the best two are left out after a warm-up round, by the first figure.
	grid bool
}

// figures by name.
type figures map[string]float64

// figure is something that systems measure.
type figure struct {
	name, unit string
	digits     int
	// less is better.
	less bool
}

// round is what a system gets to work with.
type round struct {
	url      string
	database *database
	set      settings
}

// measure runs all rounds. What a machine can't run is left out, and said.
func (s scenario) measure(ctx context.Context, database *database, set settings) (_ report, err error) {
	report := report{Scenario: s.name, About: s.about, Figures: describe(s.figures)}
	defer func() { err = errors.Join(err, database.forget(ctx)) }()
	var systems []system
	for _, system := range s.systems(set) {
		if system.ready != nil {
			if err := system.ready(ctx); errors.Is(err, errMissing) {
				report.Skipped = append(report.Skipped, fmt.Sprintf("%s: %s", system.name, err))
				set.say("%s: %s is skipped: %s", s.name, system.name, err)
				continue
			} else if err != nil {
				return report, err
			}
		}
		systems = append(systems, system)
	}
	if systems, err = s.warmUp(ctx, database, systems, set); err != nil {
		return report, err
	}
	for _, system := range systems {
		report.Systems = append(report.Systems, measured{Name: system.name, Role: system.role, Tuning: system.tuning})
	}
	start := time.Now()
	for i := range set.rounds {
		for j := range systems {
			at := (i + j) % len(systems)
			if report.Systems[at].Failed != "" {
				continue
			}
			got, err := once(ctx, database, systems[at], set)
			if err != nil && ctx.Err() != nil {
				return report, err
			}
			if err != nil {
				report.Systems[at].Failed = err.Error()
				set.say("%s, round %d of %d: %s failed and is left out: %s", s.name, i+1, set.rounds, systems[at].name, err)
				continue
			}
			set.say("%s, round %d of %d: %s: %s", s.name, i+1, set.rounds, systems[at].name, inWords(s.figures, got))
			report.Systems[at].Rounds = append(report.Systems[at].Rounds, got)
		}
	}
	report.Seconds = time.Since(start).Seconds()
	return report, nil
}

// warmUp leaves the best two of a grid; the full run measures the whole of it.
func (s scenario) warmUp(ctx context.Context, database *database, systems []system, set settings) ([]system, error) {
	type candidate struct {
		name  string
		value float64
	}
	var grid []candidate
	for _, system := range systems {
		if !system.grid || set.full {
			continue
		}
		got, err := once(ctx, database, system, set)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			set.say("%s, warm-up: %s failed: %s", s.name, system.name, err) // and gets no round, but as the last choice
		}
		set.say("%s, warm-up: %s: %s", s.name, system.name, inWords(s.figures, got))
		grid = append(grid, candidate{system.name, got[s.figures[0].name]})
	}
	slices.SortFunc(grid, func(a, b candidate) int { return int(b.value - a.value) })
	return slices.DeleteFunc(systems, func(system system) bool {
		at := slices.IndexFunc(grid, func(c candidate) bool { return c.name == system.name })
		return at > 1
	}), nil
}

func once(ctx context.Context, database *database, system system, set settings) (_ figures, err error) {
	url, drop, err := database.copy(ctx, system.template)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	ctx, cancel := context.WithTimeoutCause(ctx, set.patience, errors.New("the round took too long"))
	defer cancel()
	return system.run(ctx, round{url: url, database: database, set: set})
}

// of makes a system of a queue, in a database with so many jobs.
func of(q queue, jobs int, run func(context.Context, round, queue) (figures, error)) system {
	return system{
		name: q.name(), tuning: q.tuning(), role: q.role(), ready: q.ready,
		template: template{
			key:  fmt.Sprintf("%T %+v, %d jobs", q, q, jobs),
			make: func(ctx context.Context, url string) error { return q.install(ctx, url, jobs) },
		},
		run: func(ctx context.Context, r round) (figures, error) { return run(ctx, r, q) },
	}
}

// attend runs a worker while body measures, and stops it, whatever happens.
func attend(ctx context.Context, r round, q queue, load load, body func(worker worker) error) (err error) {
	worker, err := q.boot(ctx, r.url, load)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	return body(worker)
}

// settled returns when the database says that no job is left, and checks that all ran once.
func settled(ctx context.Context, r round, q queue, recorder *recorder, worker worker, jobs int) (time.Time, error) {
	if err := recorder.wait(ctx, jobs); err != nil {
		return time.Time{}, err
	}
	conn, closeConn, err := connect(ctx, r.url)
	if err != nil {
		return time.Time{}, err
	}
	defer closeConn()
	for {
		left, err := q.left(ctx, conn)
		if err != nil {
			return time.Time{}, err
		}
		if !left {
			break
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("wait until all jobs are finished: %w", err)
		}
	}
	end := time.Now()
	if err := worker.collect(ctx); err != nil {
		return end, err
	}
	return end, errors.Join(recorder.verify(jobs), q.finished(ctx, conn, jobs))
}
