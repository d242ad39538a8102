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
	if o.Skipped != "" {
		fmt.Fprintf(out, "%-8s %-14s %s\n", "skipped", o.Scenario.Name, o.Skipped)
		return
	}
	fmt.Fprintf(out, "%-8s %-14s %4.0f s  %s\n", verdict, o.Scenario.Name, o.Took.Seconds(), o.Figures)
	if o.Err != nil {
		fmt.Fprintf(out, "    %v\n", o.Err)
	}
	for i, line := range o.Figures.Beside {
		if i < maxShown {
			fmt.Fprintf(out, "    overlap after a reap: %s\n", line)
		}
	}
	for i, v := range o.Violations {
		if i == maxShown {
			fmt.Fprintf(out, "    and %d more\n", len(o.Violations)-maxShown)
			break
		}
		fmt.Fprintf(out, "    %s: %s\n", v.Breach, v.Detail)
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

// String is one line for people.
func (f Figures) String() string {
	text := fmt.Sprintf("%d jobs, %d runs, %d faults, %d reaped", f.Jobs, f.Runs, f.Faults, f.Reaped)
	if f.BackedOff > 0 {
		text += fmt.Sprintf(" (%d back off)", f.BackedOff)
	}
	text += fmt.Sprintf(", recovery p50 %s max %s, late max %s", seconds(f.RecoveryP50), seconds(f.RecoveryMax), seconds(f.LateMax))
	if f.Resume > 0 {
		text += ", resume max " + seconds(f.Resume)
	}
	if f.Strain > 200*time.Millisecond {
		text += fmt.Sprintf(" (the machine took up to %s to start a program)", seconds(f.Strain))
	}
	if f.Overlaps > 0 {
		text += fmt.Sprintf(", %d overlaps after a reap", f.Overlaps)
	}
	return text
}

const tableHead = "| Scenario | Jobs | Faults | Reaped and run again | Recovery p50 | max | Resume max | Late max " +
	"| Overlaps after a reap | Healthy reaped | Lost | Stale settles | Other violations | Allowed more |\n" +
	"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"

// Table of all figures, in Markdown.
func Table(outcomes []Outcome) string {
	var text strings.Builder
	text.WriteString(tableHead)
	for _, o := range outcomes {
		if o.Skipped != "" {
			fmt.Fprintf(&text, "| %s | skipped: %s |\n", o.Scenario.Title, o.Skipped)
			continue
		}
		f := o.Figures
		others := 0
		for kind, n := range f.Breach {
			if kind != HealthyReap && kind != Lost && kind != StaleSettle {
				others += n
			}
		}
		if o.Err != nil {
			others++
		}
		fmt.Fprintf(&text, "| %s | %d | %d | %d | %s | %s | %s | %s | %d | %d | %d | %d | %d | %s |\n", o.Scenario.Title, f.Jobs, f.Faults, f.Reaped,
			seconds(f.RecoveryP50), seconds(f.RecoveryMax), seconds(f.Resume), seconds(f.LateMax), f.Overlaps,
			f.Breach[HealthyReap], f.Breach[Lost], f.Breach[StaleSettle], others, seconds(patience*f.Strain))
	}
	return text.String()
}

// Page of results, in Markdown.
func Page(config Config, outcomes []Outcome) string {
	form := "the short form, `make chaos`"
	if config.Full {
		form = "the long form, `make chaos FULL=1`"
	}
	return fmt.Sprintf(pageText, form, config.Seed) + Table(outcomes)
}

const pageText = `# Chaos

What became of jobs under faults: %s, seed %d. All sidecars have default settings. Written by
` + "`make chaos RESULTS=docs/chaos.md`" + `; package internal/chaos says how it is measured and checked.

Recovery is from the fault to the new start of a job whose lease was taken from a sidecar that the fault struck; resume is from the
end of a fault that struck all sidecars (the database was gone) to the first start; late is a job's first start after it was
committed and due. Overlaps are handlers that were still running (behind a sidecar that was stopped or cut off) when their job ran
again, after its lease had been taken away. The last column is by how much the times that a scenario allows were stretched, as the
machine was slow to start a program.

`
