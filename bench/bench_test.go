package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// timeForPeers is a window in which a process of Node gets something done.
const timeForPeers = 10 * time.Second

// buildProgram builds pgbell for the scenarios that measure the whole process.
func buildProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbell")
	build := exec.Command("go", "build", "-o", path, "./cmd/pgbell")
	build.Dir = ".."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pgbell: %v: %s", err, output)
	}
	return path
}

// lines hands what a run says to the test's log.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func measureTiny(t *testing.T, args ...string) results {
	t.Helper()
	out := t.TempDir()
	args = append([]string{"-rounds", "1", "-jobs", "300", "-window", "200ms", "-patience", "1m", "-out", out}, args...)
	if err := run(t.Context(), args, io.Discard, lines{t}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got results
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, report := range got.Scenarios {
		if _, err := os.Stat(filepath.Join(out, report.Scenario+".svg")); err != nil {
			t.Error(err)
		}
		for _, system := range report.Systems {
			if s, ok := system.spread(report.Figures[0].Name); system.Failed != "" || !ok || s.low < 0 {
				t.Errorf("%s: %s: %+v", report.Scenario, system.Name, system)
			}
		}
	}
	return got
}

// Without -full the peers are in this process, or skipped where they can't be installed.
func TestEachScenarioMeasures(t *testing.T) {
	got := measureTiny(t, "-pgbell", buildProgram(t))
	if got.Postgres.Settings["fsync"] != "on" || got.Postgres.CommitMilliseconds <= 0 || got.Jobs != 300 {
		t.Errorf("results say %+v", got.Postgres)
	}
	var names []string
	for _, report := range got.Scenarios {
		names = append(names, report.Scenario)
	}
	for _, want := range []string{"drain", "drain_deleted", "pickup_idle", "pickup_4000", "producers_32", "held_horizon", "flat", "idle",
		"webhook", "memory", "wal", "fleet_lone", "fleet_drain"} {
		if !slices.Contains(names, want) {
			t.Errorf("no scenario %s in %s", want, names)
		}
	}
	if len(got.Goals) < len(goals())-2 { // those against graphile-worker may be skipped
		t.Errorf("%d of %d goals have figures", len(got.Goals), len(goals()))
	}
}

func TestPeersOnNode(t *testing.T) {
	if err := nodePeers(t.Context()); errors.Is(err, errMissing) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	database, err := startDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.stop(); err != nil {
			t.Error(err)
		}
	})
	set := settings{rounds: 1, jobs: 300, window: timeForPeers, patience: 2 * timeForPeers, progress: lines{t}}
	for _, q := range []queue{graphileQueue(true), bossQueue(true)} {
		for _, s := range []system{of(q, 300, drain(300)), of(q, 0, atRate(20))} {
			if got, err := once(t.Context(), database, s, set); err != nil {
				t.Errorf("%s: %v", s.name, err)
			} else if got["jobs_per_second"] < 10 {
				t.Errorf("%s: %v", s.name, got)
			}
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-jobs", "-1"}, {"more"}, {"-window", "1ms"}, {"-scenarios", "nosuch"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q went through", args)
		}
	}
}

func TestChoose(t *testing.T) {
	for list, want := range map[string]int{"drain": 1, "drain,flat": 2, "producers": 3, "pickup_idle": 1, "fleet": 2, "pickup": 4} {
		if chosen, err := choose(list, false); err != nil || len(chosen) != want {
			t.Errorf("%s: %d scenarios, %v", list, len(chosen), err)
		}
	}
	if chosen, err := choose("", true); err != nil || len(chosen) != len(scenarios()) {
		t.Errorf("full: %d of %d scenarios, %v", len(chosen), len(scenarios()), err)
	}
}

// A system that is quick because it is wrong gets no figure.
func TestWrongSystemFails(t *testing.T) {
	r := newRecorder(3)
	for _, n := range []int{0, 1, 1, 7, -1} {
		r.begin(n)
	}
	if err := r.verify(1); err == nil || !strings.Contains(err.Error(), "more than once") {
		t.Errorf("a job that ran twice: %v", err)
	}
	r = newRecorder(2)
	r.begin(1)
	if err := r.verify(2); err == nil || !strings.Contains(err.Error(), "job 0 of 2 did not run") {
		t.Errorf("a job that did not run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.wait(ctx, 2); err == nil {
		t.Error("waited for a job that never comes")
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]int{`{"n": 17}`: 17, `{"n":0}`: 0, `{}`: -1, `{"text": "x"}`: -1, payloadOf(5): 5} {
		if got := number([]byte(text)); got != want {
			t.Errorf("%s: %d, not %d", text, got, want)
		}
	}
}

func TestTenths(t *testing.T) {
	const jobs = 100
	r := newRecorder(jobs)
	for n := range jobs { // the first half 1 ms apart, the second 2 ms
		r.note(n, int64(1e6*(1+n+max(0, n-jobs/2))))
	}
	if first, last := r.tenths(jobs); int(first+0.5) != 1000 || int(last+0.5) != 500 {
		t.Errorf("%g and %g jobs/s", first, last)
	}
}
