package demo

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func aJob() plannedJob {
	return plannedJob{
		number: 5, jobType: typePayment, scenario: "plain",
		want: expectation{status: statusCompleted, attempts: 2, errors: 1, effects: 1},
	}
}

func asWanted() row {
	return row{Status: statusCompleted, Attempts: 2, Errors: 1, Effects: 1, Ended: true, Result: 5, Error: "of the first attempt"}
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*entry, *row)
		want   string
	}{
		"as wanted":       {func(*entry, *row) {}, ""},
		"status":          {func(_ *entry, r *row) { r.Status = statusPending }, "status is pending, not completed"},
		"attempts":        {func(_ *entry, r *row) { r.Attempts = 3 }, "attempts is 3, not 2"},
		"run once more":   {func(e *entry, _ *row) { e.starts = 3 }, "number of runs seen by the application is 3, not 2"},
		"never run":       {func(e *entry, _ *row) { e.starts = 0 }, "number of runs seen by the application is 0, not 2"},
		"errors":          {func(_ *entry, r *row) { r.Errors = 0 }, "number of rows in job_errors is 0, not 1"},
		"effect twice":    {func(_ *entry, r *row) { r.Effects = 2 }, "number of effects is 2, not 1"},
		"no effect":       {func(_ *entry, r *row) { r.Effects = 0 }, "number of effects is 0, not 1"},
		"not ended":       {func(_ *entry, r *row) { r.Ended = false }, "completed_at set is false, not true"},
		"another's":       {func(_ *entry, r *row) { r.Result = 6 }, "job named in the result is 6, not 5"},
		"failed, no text": {func(e *entry, r *row) { e.job.want.status, r.Status, r.Error = statusFailed, statusFailed, "" }, "error set is false, not true"},
	} {
		e, r := &entry{job: aJob(), starts: 2}, asWanted()
		test.change(e, &r)
		if got := strings.Join(differences(e, &r), "; "); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if got := differences(&entry{job: aJob()}, nil); len(got) != 1 || got[0] != "its row is gone" {
		t.Errorf("a missing row: %q", got)
	}
}

func TestLedgerMeasuresFirstAttemptsDueAtOnce(t *testing.T) {
	t.Parallel()
	l := newLedger()
	now := time.Now()
	delayed := aJob()
	delayed.delay = time.Second
	l.insertedAt(now, []string{"a", "b", "c"}, []plannedJob{aJob(), aJob(), delayed})
	l.started("a", 1, now.Add(10*time.Millisecond))
	l.started("a", 2, now.Add(time.Hour))
	l.started("b", 2, now.Add(time.Hour)) // its first attempt wasn't seen: no pickup time
	l.started("c", 1, now.Add(time.Hour))
	l.started("d", 1, now.Add(-time.Millisecond)) // quicker than the reply to its insert
	l.insertedAt(now, []string{"d"}, []plannedJob{aJob()})
	if got := l.summary().PickupMS; got.Count != 2 || got.Max != 10 || got.P50 != 0 {
		t.Errorf("%+v, want two samples, 0 and 10 ms", got)
	}
	if starts := l.entries["d"].starts; starts != 1 {
		t.Errorf("the start before the reply was counted %d times", starts)
	}
}

func TestLedgerReportsWhatMustNotRun(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.rolledBackRow("gone", aJob())
	l.started("early", 1, time.Now())
	l.started("stranger", 1, time.Now())
	l.rolledBackRow("early", aJob())
	l.started("gone", 1, time.Now())
	s := l.summary()
	if s.UnexpectedCount != 2 || !strings.Contains(s.Unexpected[0], "early ran although") || !strings.Contains(s.Unexpected[1], "gone ran although") {
		t.Errorf("%q", s.Unexpected)
	}
	l.forgetEarly(time.Now().Add(earlyFor + time.Second))
	if len(l.early) != 0 {
		t.Errorf("strangers are remembered: %v", l.early)
	}
}

func TestLedgerCountsByStatus(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.insertedAt(time.Now(), []string{"a", "b", "c", "d"}, []plannedJob{aJob(), aJob(), aJob(), aJob()})
	l.observe(sighting{"a", statusCompleted, 2})
	l.observe(sighting{"b", statusFailed, 3})
	l.observe(sighting{"c", statusProcessing, 1})
	l.observe(sighting{"a", statusPending, 0}) // final is final: what comes later is for verify to find
	want := Tally{Inserted: 4, Completed: 1, Failed: 1, Retried: 3, waiting: 1, running: 1}
	if got := l.byType()[typePayment]; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if s := l.summary(); s.Unfinished != 2 || s.Inserted != 4 {
		t.Errorf("%+v", s)
	}
}

func TestLedgerIsBounded(t *testing.T) {
	t.Parallel()
	l := newLedger()
	const many = 300
	for i := range many {
		id := fmt.Sprint(i)
		l.insertedAt(time.Now(), []string{id}, []plannedJob{aJob()})
		if i != 7 {
			l.observe(sighting{id, statusCompleted, 1})
		}
		l.surprise("surprise %d", i)
	}
	taken := l.surplus(100)
	if len(taken) != many-100 || len(l.entries) != 100 || len(l.order) != 100 {
		t.Errorf("took %d, kept %d and %d", len(taken), len(l.entries), len(l.order))
	}
	if l.entries["7"] == nil || l.openCount() != 1 {
		t.Error("a job that isn't finished was let go")
	}
	if again := l.surplus(100); len(again) != 0 {
		t.Errorf("took %d more", len(again))
	}
	if s := l.summary(); len(s.Unexpected) != maxUnexpected || s.UnexpectedCount != many {
		t.Errorf("%d lines for %d surprises", len(s.Unexpected), s.UnexpectedCount)
	}
	if rest := l.take(false); len(rest) != 99 {
		t.Errorf("took %d finished ones", len(rest))
	}
	if rest := l.take(true); len(rest) != 1 || rest[0].id != "7" {
		t.Errorf("took %v", rest)
	}
}

func TestVerifyNamesTheJob(t *testing.T) {
	t.Parallel()
	l := newLedger()
	good, bad := asWanted(), asWanted()
	bad.Effects, bad.Error = 2, "boom\x1b[31m"
	jobs := []*entry{{id: "good", job: aJob(), starts: 2}, {id: "bad", job: aJob(), starts: 2}, {id: "lost", job: aJob(), starts: 2}}
	l.verify(jobs, map[string]*row{"good": &good, "bad": &bad})
	want := []string{
		"book_payment bad (plain): number of effects is 2, not 1; its error: boom\uFFFD[31m",
		"book_payment lost (plain): its row is gone",
	}
	if s := l.summary(); s.Verified != 3 || strings.Join(s.Unexpected, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", s.Unexpected, want)
	}
}
