package demo

import (
	"fmt"
	"time"
)

// Summary is what a demo has come to; as JSON, what `pgbell demo --json` prints. Counts are of the stream's jobs alone.
type Summary struct {
	// OK: nothing was unexpected, and with Config.For nothing is unfinished and the demo wasn't interrupted.
	OK bool `json:"ok"`

	// Inserted rows that were committed: all of them are Completed, Failed or Unfinished.
	Inserted  int `json:"inserted"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	// Unfinished jobs are left behind only by an interrupt, or by something that went wrong.
	Unfinished int `json:"unfinished"`
	// Retried counts the attempts after a job's first.
	Retried int `json:"retried"`
	// Refused rows had the unique_key of a job that wasn't finished.
	Refused int `json:"refused"`
	// RolledBack rows were inserted in a transaction or savepoint that was rolled back.
	RolledBack int `json:"rolled_back"`
	// Others are jobs that somebody else inserted and that were run, attempt by attempt.
	Others int `json:"others"`

	// P50, P95 and P99 are those of PickupMS, in milliseconds.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	// PickupMS is from an insert's commit to the start of the handler; see the package comment.
	PickupMS Pickup `json:"pickup_ms"`

	// Types has the counts and pickup times by job type.
	Types map[string]TypeSummary `json:"types"`
	// Verified jobs were compared with their rows and effects.
	Verified int `json:"verified"`
	// Unexpected says what was not as it should be, at most 50 lines; UnexpectedCount counts all.
	Unexpected      []string `json:"unexpected"`
	UnexpectedCount int      `json:"unexpected_count"`

	// FirstCompletedS is the time from the call of Run until the first job was seen completed, in seconds; 0 if none was.
	FirstCompletedS float64 `json:"first_completed_s"`
	// DurationS is from the stream's first insert to the end of the last job, in seconds.
	DurationS float64 `json:"duration_s"`
	// Postgres is the server's version.
	Postgres string `json:"postgres"`
	// Interrupted: the demo was ended by its context: before its time, or as it had no end set.
	Interrupted bool `json:"interrupted"`
}

// TypeSummary is what became of the stream's jobs of one type.
type TypeSummary struct {
	Tally
	PickupMS Pickup `json:"pickup_ms"`
}

// summary of what the ledger knows.
func (l *ledger) summary() Summary {
	s := l.counts()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.PickupMS = l.pickup.pickup()
	for jobType, times := range l.pickupOf {
		s.Types[jobType] = TypeSummary{s.Types[jobType].Tally, times.pickup()}
	}
	s.P50, s.P95, s.P99 = s.PickupMS.P50, s.PickupMS.P95, s.PickupMS.P99
	return s
}

// counts is a summary without pickup times.
func (l *ledger) counts() Summary {
	types := l.byType()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Summary{
		Refused: l.refused, RolledBack: l.rolledBack, Types: map[string]TypeSummary{}, Verified: l.verified,
		Unexpected: append([]string{}, l.unexpected...), UnexpectedCount: len(l.unexpected) + l.unexpectedMore,
	}
	for jobType, count := range types {
		s.Types[jobType] = TypeSummary{Tally: count}
		s.Inserted += count.Inserted
		s.Completed += count.Completed
		s.Failed += count.Failed
		s.Retried += count.Retried
	}
	s.Unfinished = s.Inserted - s.Completed - s.Failed
	return s
}

// Text is the summary for people.
func (s Summary) Text() string {
	text := fmt.Sprintf("%d inserted, %d completed, %d failed", s.Inserted, s.Completed, s.Failed)
	if s.Unfinished > 0 {
		text += fmt.Sprintf(", %d not finished", s.Unfinished)
	}
	text += fmt.Sprintf("; %d retries, %d duplicates refused, %d rows rolled back, in %s\n",
		s.Retried, s.Refused, s.RolledBack, time.Duration(s.DurationS*float64(time.Second)).Round(100*time.Millisecond))
	text += fmt.Sprintf("pickup, from the insert's commit to the handler's start: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms (%d jobs)\n",
		s.P50, s.P95, s.P99, s.PickupMS.Count)
	if s.Others > 0 {
		text += fmt.Sprintf("%d attempts of jobs that somebody else inserted\n", s.Others)
	}
	for _, line := range s.Unexpected {
		text += "unexpected: " + line + "\n"
	}
	if more := s.UnexpectedCount - len(s.Unexpected); more > 0 {
		text += fmt.Sprintf("unexpected: %d more\n", more)
	}
	switch {
	case s.Verified == 0:
	case s.OK:
		text += fmt.Sprintf("%d jobs compared with their rows and effects: each ended as it should\n", s.Verified)
	default:
		text += fmt.Sprintf("%d jobs compared with their rows and effects: NOT all is as it should be\n", s.Verified)
	}
	return text
}
