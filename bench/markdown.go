package main

import (
	"fmt"
	"slices"
	"strings"
)

// markdown tells the results: the goals first, then a table per scenario.
func (r results) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "# Measurements\n\n%s, commit %s. %s\n\n", r.When.Format("2006-01-02"), r.Machine.Commit, r.circumstances())
	text.WriteString("Each row is the median of the rounds and their range; ratios are of medians of this run.\n\n")
	text.WriteString(r.goalTable())
	for _, report := range r.Scenarios {
		text.WriteString(report.markdown())
	}
	return text.String()
}

func (r results) circumstances() string {
	var settings []string
	for name, value := range r.Postgres.Settings {
		settings = append(settings, name+" = "+value)
	}
	slices.Sort(settings)
	return fmt.Sprintf("%d CPUs (%s), PostgreSQL %s on the same machine (%s), a commit takes %.2f ms; %d rounds, %d jobs, windows of %s.",
		r.Machine.CPUs, r.Machine.CPU, r.Postgres.Version, strings.Join(settings, ", "), r.Postgres.CommitMilliseconds,
		r.Rounds, r.Jobs, r.Window)
}

func (r results) goalTable() string {
	if len(r.Goals) == 0 {
		return ""
	}
	var text strings.Builder
	text.WriteString("| goal | measured | bar | |\n|---|---|---|---|\n")
	for _, v := range r.Goals {
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", v.Goal, v.Measured, v.Bar, v.said())
	}
	return text.String()
}

func (r report) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s\n\n%s\n\n![%s](%s.svg)\n\n| system |", r.Scenario, r.About, r.Scenario, r.Scenario)
	rule := "|---|"
	for _, figure := range r.Figures {
		fmt.Fprintf(&text, " %s |", figure.Unit)
		rule += "---:|"
	}
	compared := len(r.Systems) > 1
	if compared {
		fmt.Fprintf(&text, " pgbell's %s / this |", r.Figures[0].Unit)
		rule += "---:|"
	}
	text.WriteString("\n" + rule + "\n")
	for _, system := range r.Systems {
		fmt.Fprintf(&text, "| %s |", system.Name)
		for _, figure := range r.Figures {
			text.WriteString(cell(system, figure))
		}
		if compared {
			text.WriteString(r.ratio(system))
		}
		text.WriteString("\n")
	}
	text.WriteString("\n")
	for _, system := range r.Systems {
		if system.Tuning != "" {
			fmt.Fprintf(&text, "- %s: %s.\n", system.Name, system.Tuning)
		}
	}
	for _, system := range r.Systems {
		if system.Failed != "" {
			fmt.Fprintf(&text, "- %s failed: %s.\n", system.Name, system.Failed)
		}
	}
	for _, skipped := range r.Skipped {
		fmt.Fprintf(&text, "- Skipped: %s.\n", skipped)
	}
	return text.String()
}

func cell(system measured, figure described) string {
	s, ok := system.spread(figure.Name)
	switch {
	case !ok:
		return " |"
	case len(system.Rounds) == 1:
		return fmt.Sprintf(" %.*f |", figure.Digits, s.median)
	}
	return fmt.Sprintf(" %.*f (%.*f to %.*f) |", figure.Digits, s.median, figure.Digits, s.low, figure.Digits, s.high)
}

// ratio is the best pgbell's first figure to this system's.
func (r report) ratio(system measured) string {
	figure := r.Figures[0]
	own, _, ok := r.best(figure, ours)
	s, measured := system.spread(figure.Name)
	if !ok || !measured || s.median == 0 {
		return " |"
	}
	return fmt.Sprintf(" %.2f |", own/s.median)
}
