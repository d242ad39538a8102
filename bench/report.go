package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what a scenario measured.
type report struct {
	Scenario     string      `json:"scenario"`
	About        string      `json:"about"`
	When         time.Time   `json:"when"`
	Jobs         int         `json:"jobs"`
	PayloadBytes int         `json:"payload_bytes"`
	Machine      machine     `json:"machine"`
	Postgres     serverFacts `json:"postgres"`
	Systems      []measured  `json:"systems"`

	figures []figure
}

// measured is what one system reached in each round.
type measured struct {
	Name   string               `json:"name"`
	Floor  bool                 `json:"floor,omitempty"`
	Rounds []map[string]float64 `json:"rounds"`
}

type machine struct {
	System string `json:"system"`
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu,omitempty"`
	Go     string `json:"go"`
	Commit string `json:"commit,omitempty"`
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

// bestFloor is the highest median of a figure among the floors; false without floors.
func (r report) bestFloor(figure string) (best float64, found bool) {
	for _, system := range r.Systems {
		if s, ok := system.spread(figure); ok && system.Floor {
			best, found = max(best, s.median), true
		}
	}
	return best, found
}

func (r report) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s\n\n%s\n\n", r.Scenario, r.About)
	fmt.Fprintf(&text, "%d jobs with payloads of %d bytes; %d CPUs (%s), PostgreSQL %s on the same machine, a commit takes %.2f ms;",
		r.Jobs, r.PayloadBytes, r.Machine.CPUs, r.Machine.CPU, r.Postgres.Version, r.Postgres.CommitMilliseconds)
	names := make([]string, 0, len(r.Postgres.Settings))
	for name := range r.Postgres.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		separator := ","
		if i == 0 {
			separator = ""
		}
		fmt.Fprintf(&text, "%s %s = %s", separator, name, r.Postgres.Settings[name])
	}
	text.WriteString(".\n\n| system |")
	rule := "|---|"
	for _, figure := range r.figures {
		fmt.Fprintf(&text, " %s, median (range) |", figure.unit)
		rule += "---:|"
		if _, ok := r.bestFloor(figure.name); ok && figure.ratio {
			text.WriteString(" of the best floor |")
			rule += "---:|"
		}
	}
	text.WriteString("\n" + rule + "\n")
	for _, system := range r.Systems {
		fmt.Fprintf(&text, "| %s |", system.Name)
		for _, figure := range r.figures {
			r.cells(&text, system, figure)
		}
		text.WriteString("\n")
	}
	return text.String()
}

func (r report) cells(text *strings.Builder, system measured, figure figure) {
	best, compared := r.bestFloor(figure.name)
	compared = compared && figure.ratio
	s, ok := system.spread(figure.name)
	if !ok {
		text.WriteString(" |")
		if compared {
			text.WriteString(" |")
		}
		return
	}
	fmt.Fprintf(text, " %.*f (%.*f to %.*f) |", figure.digits, s.median, figure.digits, s.low, figure.digits, s.high)
	if compared {
		fmt.Fprintf(text, " %.0f %% |", 100*s.median/best)
	}
}

func inWords(figures []figure, values map[string]float64) string {
	var parts []string
	for _, figure := range figures {
		if value, ok := values[figure.name]; ok {
			parts = append(parts, fmt.Sprintf("%.*f %s", figure.digits, value, figure.unit))
		}
	}
	return strings.Join(parts, ", ")
}
