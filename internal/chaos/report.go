package chaos

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// maxShown violations of a scenario; all of them are of one kind, mostly.
const maxShown = 10

// Print says what became of a scenario, with the evidence if something was violated.
func Print(out io.Writer, o Outcome) {
	verdict := "ok"
	if !o.OK() {
		verdict = "VIOLATED"
	}
	f := o.Figures
	fmt.Fprintf(out, "%-8s %-14s %4.0fs  %d jobs, %d faults, %d re-runs, recovery p50 %s max %s\n", verdict, o.Scenario.Name,
		o.Took.Seconds(), f.Jobs, f.Faults, f.Reruns, seconds(f.RecoveryP50), seconds(f.RecoveryMax))
	if o.Err != nil {
		fmt.Fprintf(out, "    %v\n", o.Err)
	}
	for i, v := range o.Violations {
		if i == maxShown {
			fmt.Fprintf(out, "    and %d more\n", len(o.Violations)-maxShown)
			break
		}
		fmt.Fprintf(out, "    %s %s\n", v.What, v.Job)
		for _, line := range v.Evidence {
			fmt.Fprintf(out, "        %s\n", line)
		}
	}
	if o.Folder != "" {
		fmt.Fprintf(out, "    history and logs: %s\n", o.Folder)
	}
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// Table of all figures, in Markdown.
func Table(outcomes []Outcome) string {
	var text strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&text, "| %s | %d |\n", o.Scenario.Title, o.Figures.Jobs)
	}
	return text.String()
}

// Page of results.
func Page(config Config, outcomes []Outcome) string { return Table(outcomes) }
