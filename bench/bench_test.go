package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDrainMeasuresAllSystems(t *testing.T) {
	out := t.TempDir()
	if err := run(t.Context(), []string{"-scenario", "drain", "-rounds", "2", "-jobs", "300", "-out", out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "drain.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Postgres.Settings["fsync"] != "on" || got.Postgres.CommitMilliseconds <= 0 || got.Jobs != 300 {
		t.Errorf("report says %+v", got)
	}
	if len(got.Systems) != len(drainScenario().systems) {
		t.Errorf("%d systems", len(got.Systems))
	}
	for _, system := range got.Systems {
		if s, ok := system.spread("jobs_per_second"); !ok || s.low <= 0 || len(system.Rounds) != 2 {
			t.Errorf("%s: %+v", system.Name, system)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-jobs", "-1"}, {"more"}, {"-scenario", "nosuch", "-out", t.TempDir()}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q went through", args)
		}
	}
}

func TestMarkdownComparesWithTheBestFloor(t *testing.T) {
	rounds := func(values ...float64) (all []map[string]float64) {
		for _, value := range values {
			all = append(all, map[string]float64{"rate": value})
		}
		return all
	}
	text := report{
		Scenario: "s", figures: []figure{{name: "rate", unit: "jobs/s", ratio: true}},
		Systems: []measured{
			{Name: "ours", Rounds: rounds(60, 80, 70)},
			{Name: "slow floor", Floor: true, Rounds: rounds(50, 50)},
			{Name: "best floor", Floor: true, Rounds: rounds(90, 110)},
			{Name: "broken"},
		},
	}.markdown()
	for _, row := range []string{
		"| system | jobs/s, median (range) | of the best floor |",
		"| ours | 70 (60 to 80) | 70 % |", "| slow floor | 50 (50 to 50) | 50 % |", "| best floor | 100 (90 to 110) | 100 % |", "| broken | | |",
	} {
		if !strings.Contains(text, row) {
			t.Errorf("no row %q in\n%s", row, text)
		}
	}
}
