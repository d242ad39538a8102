package chaos_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

// build makes the program that scenarios test.
func build(t *testing.T) chaos.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbell")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/pgbell").CombinedOutput(); err != nil {
		t.Fatalf("build pgbell: %v: %s", err, output)
	}
	return chaos.Config{Pgbell: path, Program: []string{os.Args[0], childFlag}, Seed: 1}
}

// short makes a scenario one for a test: it strikes at once, for a few seconds.
func short(scenario chaos.Scenario) chaos.Scenario {
	scenario.Cold, scenario.Lasts, scenario.Sidecars = true, 3*time.Second, 2
	scenario.Pause = [2]time.Duration{time.Second, 2 * time.Second}
	return scenario
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	config := build(t)
	t.Run("runs to its end", func(t *testing.T) {
		t.Parallel()
		runsToItsEnd(t, config)
	})
	t.Run("is violated", func(t *testing.T) {
		t.Parallel()
		isViolated(t, config)
	})
}

func runsToItsEnd(t *testing.T, config chaos.Config) {
	t.Helper()
	scenarios, err := chaos.Choose("endpoint")
	if err != nil {
		t.Fatal(err)
	}
	o := chaos.Run(t.Context(), config, short(scenarios[0]))
	var said strings.Builder
	chaos.Print(&said, o)
	t.Log(said.String())
	if !o.OK() {
		t.Error("the scenario was violated")
	}
	if f := o.Figures; f.Jobs == 0 || f.Runs < f.Jobs || f.Faults == 0 {
		t.Errorf("figures: %v", f)
	}
	if _, err := os.Stat(o.Folder); o.Folder != "" || err == nil {
		t.Errorf("the folder %s is still there", o.Folder)
	}
}

// What the schedule doesn't say is no excuse: here a sidecar dies by itself, as far as the checker can tell.
func isViolated(t *testing.T, config chaos.Config) {
	t.Helper()
	scenario := short(chaos.Scenario{Name: "unexplained", Strike: func(ctx context.Context, w *chaos.World) error {
		victim := w.Any()
		if err := victim.Kill(); err != nil {
			return err
		}
		return victim.Start(ctx)
	}})
	o := chaos.Run(t.Context(), config, scenario)
	t.Cleanup(func() { _ = os.RemoveAll(o.Folder) })
	if o.Err != nil || o.Figures.Breach[chaos.EndedBadly] == 0 {
		t.Errorf("error %v, violations %v", o.Err, o.Violations)
	}
	if _, err := os.Stat(filepath.Join(o.Folder, "history.jsonl")); err != nil {
		t.Errorf("the evidence is gone: %v", err)
	}
}

func TestChooseNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	if _, err := chaos.Choose("kill,nonsense"); err == nil || !strings.Contains(err.Error(), `"nonsense"`) || !strings.Contains(err.Error(), "kill-only") {
		t.Errorf("error %v", err)
	}
	names := map[string]bool{}
	for _, scenario := range chaos.Scenarios() {
		if names[scenario.Name] || scenario.Name == "" || scenario.Title == "" {
			t.Errorf("scenario %q has no title, or is there twice", scenario.Name)
		}
		names[scenario.Name] = true
	}
}
