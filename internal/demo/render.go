package demo

import (
	"fmt"
	"slices"
	"time"
	"unicode"
)

// style of a piece of text in a terminal, as an SGR parameter; 0 is none.
type style int

const (
	plain  style = 0
	bold   style = 1
	faint  style = 2
	red    style = 31
	green  style = 32
	yellow style = 33
	cyan   style = 36
)

type piece struct {
	text  string
	style style
}

// layout is how much of a snapshot is drawn.
type layout struct {
	blanks         bool
	errors, visits int // lines at most
}

// layouts from the richest to the barest.
var layouts = []layout{{true, 3, 3}, {true, 2, 2}, {true, 1, 2}, {false, 2, 2}, {false, 1, 1}, {false, 0, 1}}

// render draws a snapshot: in at most height lines, as rich as fits, none wider than width cells.
func render(s Snapshot, width, height int) [][]piece {
	var lines [][]piece
	for _, l := range layouts {
		if lines = l.draw(s); len(lines) <= height {
			break
		}
	}
	lines = lines[:min(len(lines), max(height, 1))]
	for i := range lines {
		lines[i] = cut(lines[i], width)
	}
	return lines
}

func (l layout) draw(s Snapshot) [][]piece {
	lines := [][]piece{{{"pgbell demo", bold}, {"  " + s.Phase + clock(s.Elapsed), plain}, {first(s), faint}}}
	blank := func() {
		if l.blanks {
			lines = append(lines, nil)
		}
	}
	blank()
	lines = append(lines, []piece{
		{fmt.Sprintf("%-14s %-10s %8s %8s %9s %7s %8s", "type", "way", "waiting", "running", "completed", "failed", "retries"), faint},
	})
	for _, t := range append(slices.Clone(s.Types), TypeCounts{"all", "", s.Total}) {
		lines = append(lines, []piece{
			{fmt.Sprintf("%-14s %-10s %8d %8d ", t.Type, t.Way, t.waiting, t.running), plain},
			{fmt.Sprintf("%9d ", t.Completed), green},
			{fmt.Sprintf("%7d ", t.Failed), when(t.Failed > 0, yellow)},
			{fmt.Sprintf("%8d", t.Retried), plain},
		})
	}
	blank()
	lines = append(lines,
		[]piece{{fmt.Sprintf("inserted %d at %.0f/s, finished %d at %.0f/s, refused %d, rolled back %d", s.Total.Inserted, s.InsertRate,
			s.Total.Completed+s.Total.Failed, s.FinishRate, s.Refused, s.RolledBack), plain}},
		[]piece{
			{"commit to start: ", plain},
			{fmt.Sprintf("p50 %.1f, p95 %.1f, p99 %.1f ms", s.Recent.P50, s.Recent.P95, s.Recent.P99), cyan},
			{fmt.Sprintf(" (all: %.1f, %.1f, %.1f)", s.Pickup.P50, s.Pickup.P95, s.Pickup.P99), faint},
		},
	)
	for _, line := range tail(s.Unexpected, 2) {
		lines = append(lines, []piece{{"unexpected: " + line, red}})
	}
	blank()
	for _, line := range tail(s.Errors, l.errors) {
		lines = append(lines, []piece{{"error: ", faint}, {line, yellow}})
	}
	blank()
	if s.Visitors == 0 {
		return append(lines, []piece{{"yours: none yet, the psql command is above", faint}})
	}
	for _, line := range tail(s.Visits, l.visits) {
		lines = append(lines, []piece{{"yours: ", bold}, {line, cyan}})
	}
	return lines
}

func clock(elapsed time.Duration) string {
	return fmt.Sprintf(", %d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60)
}

func first(s Snapshot) string {
	if s.FirstCompleted == 0 {
		return ""
	}
	return fmt.Sprintf("  first job completed %.2f s after the start", s.FirstCompleted.Seconds())
}

func when(condition bool, s style) style {
	if condition {
		return s
	}
	return plain
}

func tail(lines []string, count int) []string { return lines[max(len(lines)-count, 0):] }

// cut shortens a line to width cells, of which the last one says so.
func cut(line []piece, width int) []piece {
	total := 0
	for _, p := range line {
		total += textCells(p.text)
	}
	if total <= width {
		return line
	}
	var kept []piece
	left := width - 1
	for _, p := range line {
		for i, r := range p.text {
			if left -= runeCells(r); left < 0 {
				return append(kept, piece{p.text[:i], p.style}, piece{"…", p.style})
			}
		}
		kept = append(kept, p)
	}
	return kept
}

func textCells(text string) int {
	total := 0
	for _, r := range text {
		total += runeCells(r)
	}
	return total
}

// runeCells is how many columns of a terminal a character takes: East Asian scripts and pictographs two, marks none.
func runeCells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115F, r >= 0x2E80 && r <= 0xA4CF, r >= 0xAC00 && r <= 0xD7A3, r >= 0xF900 && r <= 0xFAFF,
		r >= 0xFE30 && r <= 0xFE6F, r >= 0xFF00 && r <= 0xFF60, r >= 0x1F300 && r <= 0x1FAFF, r >= 0x20000 && r <= 0x3FFFD:
		return 2
	}
	return 1
}
