package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results of a run.
type results struct {
	When      time.Time   `json:"when"`
	Full      bool        `json:"full"`
	Rounds    int         `json:"rounds"`
	Jobs      int         `json:"jobs"`
	Window    string      `json:"window"`
	Machine   machine     `json:"machine"`
	Postgres  serverFacts `json:"postgres"`
	Goals     []verdict   `json:"goals"`
	Scenarios []report    `json:"scenarios"`
}

// report is what a scenario measured.
type report struct {
	Scenario string      `json:"scenario"`
	About    string      `json:"about"`
	Seconds  float64     `json:"seconds"`
	Figures  []described `json:"figures"`
	Systems  []measured  `json:"systems"`
	Skipped  []string    `json:"skipped,omitempty"`
}

// described is a figure in the results.
type described struct {
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Digits int    `json:"digits"`
	Less   bool   `json:"less_is_better,omitempty"`
}

// measured is what one system reached in each round.
type measured struct {
	Name   string    `json:"name"`
	Role   role      `json:"role"`
	Tuning string    `json:"tuning"`
	Rounds []figures `json:"rounds"`
	// Failed says why it has no more rounds.
	Failed string `json:"failed,omitempty"`
}

type machine struct {
	System string `json:"system"`
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu,omitempty"`
	Go     string `json:"go"`
	Commit string `json:"commit,omitempty"`
}

// failures of pgbell and its floor, which are failures of the run; a peer's is only told.
func (r results) failures() (failed []string) {
	for _, report := range r.Scenarios {
		for _, system := range report.Systems {
			if system.Failed != "" && system.Role != peer {
				failed = append(failed, report.Scenario+": "+system.Name+": "+system.Failed)
			}
		}
	}
	return failed
}

func describe(all []figure) []described {
	var out []described
	for _, f := range all {
		out = append(out, described{Name: f.name, Unit: f.unit, Digits: f.digits, Less: f.less})
	}
	return out
}

func describeMachine(ctx context.Context) (machine, error) {
	m := machine{System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if output, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(output))
	}
	return m, ctx.Err()
}

// spread is the median of the rounds and their range.
type spread struct{ median, low, high float64 }

func (m measured) spread(figure string) (spread, bool) {
	var values []float64
	for _, round := range m.Rounds {
		if value, ok := round[figure]; ok {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		return spread{}, false
	}
	slices.Sort(values)
	middle := len(values) / 2
	median := values[middle]
	if len(values)%2 == 0 {
		median = (values[middle-1] + values[middle]) / 2
	}
	return spread{median: median, low: values[0], high: values[len(values)-1]}, true
}

// best median of a figure among the systems of a role, and whose it is.
func (r report) best(figure described, of role) (value float64, name string, found bool) {
	for _, system := range r.Systems {
		s, ok := system.spread(figure.Name)
		if !ok || system.Role != of {
			continue
		}
		if !found || figure.Less == (s.median < value) && s.median != value {
			value, name, found = s.median, system.Name, true
		}
	}
	return value, name, found
}

func (r results) write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	for name, text := range map[string][]byte{"results.json": append(text, '\n'), "results.md": []byte(r.markdown())} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return r.plot(folder)
}

func inWords(all []figure, values figures) string {
	var parts []string
	for _, figure := range all {
		if value, ok := values[figure.name]; ok {
			parts = append(parts, fmt.Sprintf("%.*f %s", figure.digits, value, figure.unit))
		}
	}
	return strings.Join(parts, ", ")
}
