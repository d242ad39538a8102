package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// scenario is one comparison.
type scenario struct {
	name, about string
	// payload of each job, valid JSON.
	payload string
	// jobs in the database at the start of a round; as many as the flags say, or none.
	filled  bool
	systems []system
	figures []figure
}

// system is one way to do the scenario's work.
type system struct {
	name string
	// run does the work of one round and returns the figures that it measured.
	run func(context.Context, round) (map[string]float64, error)
	// floor is set for what the others are compared with: the least that the work can cost.
	floor bool
}

// figure is something that systems measure.
type figure struct {
	name, unit string
	digits     int
	// ratio asks for this figure's ratio to the best floor.
	ratio bool
}

// round is what a system gets to work with.
type round struct {
	databaseURL string
	jobs        int
	binary      string
}

func (s scenario) measure(ctx context.Context, set settings) (_ report, err error) {
	database, err := startDatabase(ctx)
	if err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, database.stop()) }()
	jobs := 0
	if s.filled {
		jobs = set.jobs
	}
	if err := database.fill(ctx, jobs, s.payload); err != nil {
		return report{}, err
	}
	report := report{
		Scenario: s.name, About: s.about, When: time.Now().UTC().Truncate(time.Second), Jobs: set.jobs, PayloadBytes: len(s.payload),
		figures: s.figures,
	}
	if report.Machine, err = describeMachine(ctx); err != nil {
		return report, err
	}
	if report.Postgres, err = database.describe(ctx); err != nil {
		return report, err
	}
	for _, system := range s.systems {
		report.Systems = append(report.Systems, measured{Name: system.name, Floor: system.floor})
	}
	for i := range set.rounds {
		for j := range s.systems {
			at := (i + j) % len(s.systems)
			got, err := s.once(ctx, database, s.systems[at], set)
			if err != nil {
				return report, fmt.Errorf("%s, round %d: %w", s.systems[at].name, i+1, err)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s: %s\n", s.name, i+1, set.rounds, s.systems[at].name, inWords(s.figures, got))
			report.Systems[at].Rounds = append(report.Systems[at].Rounds, got)
		}
	}
	return report, nil
}

func (s scenario) once(ctx context.Context, database *database, system system, set settings) (_ map[string]float64, err error) {
	url, drop, err := database.copy(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	return system.run(ctx, round{databaseURL: url, jobs: set.jobs, binary: set.binary})
}
