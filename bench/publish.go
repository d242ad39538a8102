package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The README shows the newest published results between these.
const (
	speedStart = "<!-- speed: written by make bench-publish -->"
	speedEnd   = "<!-- end of speed -->"
)

// publish writes the results that are in a folder into another one, which is kept, and the sum of them into the README.
func publish(from, to, readme string) error {
	text, err := os.ReadFile(filepath.Join(from, "results.json"))
	if err != nil {
		return fmt.Errorf("read results (make bench makes them): %w", err)
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	if err := r.write(to); err != nil {
		return err
	}
	page, err := os.ReadFile(readme)
	if err != nil {
		return fmt.Errorf("read README: %w", err)
	}
	before, rest, found := strings.Cut(string(page), speedStart)
	_, after, foundEnd := strings.Cut(rest, speedEnd)
	if !found || !foundEnd {
		return errors.New("the README has no place for results")
	}
	page = []byte(before + speedStart + "\n" + r.speed() + speedEnd + after)
	if err := os.WriteFile(readme, page, 0o644); err != nil {
		return fmt.Errorf("write README: %w", err)
	}
	return nil
}

// speedRows are what the README shows.
var speedRows = []struct{ text, scenario, figure string }{
	{"drain, jobs/s", "drain", "jobs_per_second"},
	{"drain, rows deleted, jobs/s", "drain_deleted", "jobs_per_second"},
	{"pickup of a single job, ms p50", "pickup_idle", "p50"},
	{"the same, p99", "pickup_idle", "p99"},
	{"pickup at 1,000 inserts/s, ms p50", "pickup_1000", "p50"},
	{"the same, p99", "pickup_1000", "p99"},
	{"pickup at 4,000 inserts/s, ms p99", "pickup_4000", "p99"},
	{"inserts/s of 32 clients that the worker keeps up with", "producers_32", "sustained_per_second"},
	{"lateness of delayed jobs, ms p99", "delayed", "p99"},
	{"drain under a held horizon, last / first tenth", "held_horizon", "kept"},
	{"webhooks, jobs/s", "webhook", "jobs_per_second"},
	{"idle sidecar, transactions/min", "idle", "transactions"},
	{"idle sidecar, MB", "idle", "memory"},
	{"WAL bytes/job", "wal", "wal"},
}

// speed sums the results up for the README.
func (r results) speed() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Measured on %s at commit %s, medians of %d rounds: %d CPUs, PostgreSQL %s on the same machine, a commit takes %.2f ms.\n\n",
		r.When.Format("2006-01-02"), r.Machine.Commit, r.Rounds, r.Machine.CPUs, r.Postgres.Version, r.Postgres.CommitMilliseconds)
	text.WriteString("| | pgbell | best peer | floor |\n|---|---:|---:|---:|\n")
	for _, row := range speedRows {
		value, _, ok := r.resolve(own(row.scenario, row.figure))
		if !ok {
			continue
		}
		fmt.Fprintf(&text, "| %s | %s |%s |%s |\n", row.text, inDigits(value), r.other(row.scenario, row.figure, peer), r.other(row.scenario, row.figure, floor))
	}
	text.WriteString("\n")
	for _, report := range r.Scenarios {
		switch report.Scenario {
		case "drain", "pickup_1000", "producers_32":
			fmt.Fprintf(&text, "![%s](docs/bench/%s.svg)\n", report.Scenario, report.Scenario)
		}
	}
	text.WriteString("\n[All results](docs/bench/results.md), with what was tuned.\n")
	return text.String()
}

func (r results) other(scenario, figure string, role role) string {
	value, name, ok := r.resolve(*best(scenario, figure, role))
	switch {
	case !ok:
		return ""
	case role == floor:
		return " " + inDigits(value)
	}
	return " " + inDigits(value) + " (" + name + ")"
}
