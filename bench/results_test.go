package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample has the medians that the tests below count on.
func sample() results {
	rounds := func(values ...float64) (all []figures) {
		for _, value := range values {
			all = append(all, figures{"jobs_per_second": value})
		}
		return all
	}
	return results{Rounds: 3, Scenarios: []report{{
		Scenario: "drain", Figures: []described{{Name: "jobs_per_second", Unit: "jobs/s"}},
		Systems: []measured{
			{Name: "ours", Role: ours, Rounds: rounds(60, 80, 70), Tuning: "none"},
			{Name: "slow floor", Role: floor, Rounds: rounds(50, 50)},
			{Name: "best floor", Role: floor, Rounds: rounds(90, 110)},
			{Name: "a peer", Role: peer, Rounds: rounds(20)},
			{Name: "broken", Role: peer, Failed: "out of order"},
		},
		Skipped: []string{"another: not available here"},
	}}}
}

func TestMarkdown(t *testing.T) {
	text := sample().markdown()
	for _, row := range []string{
		"| system | jobs/s | pgbell's jobs/s / this |",
		"| ours | 70 (60 to 80) | 1.00 |", "| slow floor | 50 (50 to 50) | 1.40 |", "| best floor | 100 (90 to 110) | 0.70 |",
		"| a peer | 20 | 3.50 |", "| broken | | |", "- ours: none.", "- broken failed: out of order.", "- Skipped: another: not available here.",
	} {
		if !strings.Contains(text, row) {
			t.Errorf("no row %q in\n%s", row, text)
		}
	}
}

func TestGoals(t *testing.T) {
	verdicts := judge(sample())
	if len(verdicts) != 2 {
		t.Fatalf("%+v", verdicts)
	}
	if v := verdicts[0]; v.Value != 3.5 || !v.Met || v.Bar != "at least 2" || v.Measured != "3.50 (ours 70.00, a peer 20.00)" {
		t.Errorf("against peers: %+v", v)
	}
	if v := verdicts[1]; v.Value != 0.7 || v.Met || v.said() != "**missed**" {
		t.Errorf("against the floor: %+v", v)
	}
}

// Each goal names figures that its scenario has: a typo would leave the goal out for ever.
func TestGoalsNameFigures(t *testing.T) {
	known := map[string]bool{}
	for _, s := range scenarios() {
		for _, figure := range s.figures {
			known[s.name+" "+figure.name] = true
			for _, system := range s.systems(settings{jobs: 300, full: true}) {
				known[s.name+" "+figure.name+" "+system.name] = true
			}
		}
	}
	for _, g := range goals() {
		refs := []reference{g.own}
		if g.to != nil {
			refs = append(refs, *g.to)
		}
		for _, ref := range refs {
			if !known[strings.TrimSpace(ref.scenario+" "+ref.figure+" "+ref.system)] {
				t.Errorf("%s: nothing is called %+v", g.text, ref)
			}
		}
	}
	for _, row := range speedRows {
		if !known[row.scenario+" "+row.figure] {
			t.Errorf("nothing is called %+v", row)
		}
	}
}

func TestPublish(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "published")
	if err := sample().write(from); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(readme, []byte("before\n"+speedStart+"\nold\n"+speedEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it finds its place again
		if err := publish(from, to, readme); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	if strings.Contains(page, "old") || !strings.HasPrefix(page, "before\n") || !strings.HasSuffix(page, speedEnd+"\nafter\n") ||
		!strings.Contains(page, "| drain, jobs/s | 70.00 | 20.00 (a peer) | 100 |") {
		t.Errorf("README is\n%s", page)
	}
	if _, err := os.Stat(filepath.Join(to, "drain.svg")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(readme, []byte("no place"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(from, to, readme); err == nil {
		t.Error("published into a README without a place for it")
	}
}
