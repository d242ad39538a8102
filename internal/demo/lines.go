package demo

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const maxNewLines = 5

// Lines is a View for what isn't a terminal: a line a second, and one for each job that somebody else inserted.
type Lines struct {
	mu     sync.Mutex
	out    io.Writer
	seen   int // visits
	warned int // unexpected
	first  bool
	phase  string
}

// NewLines returns a View that writes to out. What can't be written is dropped.
func NewLines(out io.Writer) *Lines { return &Lines{out: out} }

// Interval implements View.
func (*Lines) Interval() time.Duration { return time.Second }

// Intro implements View.
func (l *Lines) Intro(intro Intro) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.out, intro.text())
}

// Frame implements View.
func (l *Lines) Frame(s Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.FirstCompleted > 0 && !l.first {
		l.first = true
		_, _ = fmt.Fprintf(l.out, "first job completed %.2f s after the start\n", s.FirstCompleted.Seconds())
	}
	if s.Phase != l.phase && l.phase != "" {
		_, _ = fmt.Fprintln(l.out, s.Phase)
	}
	l.phase = s.Phase
	l.news("yours", s.Visits, s.Visitors, &l.seen)
	l.news("unexpected", s.Unexpected, len(s.Unexpected), &l.warned)
	_, _ = fmt.Fprintf(l.out, "%5.1f s  inserted %d (%.0f/s)  waiting %d  running %d  completed %d  failed %d  retried %d  refused %d  pickup p50 %.1f p95 %.1f p99 %.1f ms\n",
		s.Elapsed.Seconds(), s.Total.Inserted, s.InsertRate, s.Total.waiting, s.Total.running, s.Total.Completed, s.Total.Failed,
		s.Total.Retried, s.Refused, s.Pickup.P50, s.Pickup.P95, s.Pickup.P99)
}

// news prints those of the lines that are new, total being how many there ever were.
func (l *Lines) news(label string, lines []string, total int, seen *int) {
	fresh := total - *seen
	*seen = total
	shown := min(fresh, len(lines), maxNewLines)
	for _, line := range lines[len(lines)-shown:] {
		_, _ = fmt.Fprintf(l.out, "%s: %s\n", label, line)
	}
	if fresh > shown {
		_, _ = fmt.Fprintf(l.out, "%s: and %d more\n", label, fresh-shown)
	}
}

// Close implements View.
func (*Lines) Close() {}
