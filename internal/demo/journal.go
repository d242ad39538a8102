package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/pgbell/pgbell/dispatch"
)

const (
	keptLines = 50
	maxLine   = 400
)

// journal keeps the most recent errors of jobs, and the most recent jobs that somebody else inserted, as lines for people. It is safe for
// concurrent use.
type journal struct {
	mu       sync.Mutex
	errors   []string
	visits   []string
	visitors int // visits of all time
}

func (j *journal) failed(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.errors = appendBounded(j.errors, line)
}

func (j *journal) visited(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.visits = appendBounded(j.visits, line)
	j.visitors++
}

func (j *journal) read() (errors, visits []string, visitors int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.errors), slices.Clone(j.visits), j.visitors
}

func appendBounded(lines []string, line string) []string {
	if len(lines) >= keptLines {
		lines = slices.Delete(lines, 0, 1)
	}
	return append(lines, line)
}

// oneLine makes text from anywhere fit for a line of a terminal: no control characters, bounded.
func oneLine(text string) string {
	var clean strings.Builder
	for _, r := range text {
		if clean.Len() >= maxLine {
			clean.WriteString("…")
			break
		}
		switch {
		case unicode.IsSpace(r):
			clean.WriteByte(' ')
		case unicode.IsPrint(r):
			clean.WriteRune(r)
		default:
			clean.WriteRune('\uFFFD')
		}
	}
	return strings.TrimSpace(clean.String())
}

// watched passes jobs to a handler and notes what is worth showing.
type watched struct {
	dispatch.Handler
	journal *journal
	started func(id string, attempt int, at time.Time) // nil where the application itself tells
	stream  bool                                       // the handler's type is one of the stream's
	ownHost bool                                       // the database's clock is this machine's
}

// Run implements dispatch.Handler.
func (w watched) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	now := time.Now()
	if w.started != nil {
		w.started(job.ID, job.Attempt, now)
	}
	result := w.Handler.Run(ctx, job)
	if result.Err != nil {
		w.journal.failed(oneLine(fmt.Sprintf("%s, attempt %d of %d: %v", job.Type, job.Attempt, job.MaxAttempts, result.Err)))
	}
	if !w.stream || readPayload(job.Payload).Demo == 0 {
		w.journal.visited(w.visit(job, result, now))
	}
	return result
}

func (w watched) visit(job dispatch.Job, result dispatch.Result, started time.Time) string {
	line := fmt.Sprintf("%s %s", job.Type, job.Payload)
	if w.ownHost && job.Attempt == 1 && !job.ScheduledFor.After(job.CreatedAt) {
		line += fmt.Sprintf(" started %.1f ms after its INSERT began", milliseconds(max(started.Sub(job.CreatedAt), 0)))
	} else {
		line += fmt.Sprintf(" ran, attempt %d of %d", job.Attempt, job.MaxAttempts)
	}
	if result.Err != nil {
		line += ": " + result.Err.Error()
	} else if len(result.Output) > 0 {
		line += ": " + string(result.Output)
	}
	return oneLine(line)
}
