package demo

import (
	"fmt"
	"strings"
)

// row is what the database says of a job at the end.
type row struct {
	ID       string
	Status   string
	Attempts int
	Ended    bool // completed_at is set
	Error    string
	Result   int64 // "demo" in its result: which job the handler thinks it ran
	Errors   int   // rows in job_errors
	Effects  int   // rows that its SQL function wrote
}

// differences says what of a job is not as its scenario leads to, nothing if all is well. A nil found is a missing row.
func differences(e *entry, found *row) []string {
	if found == nil {
		return []string{"its row is gone"}
	}
	var all []string
	differs := func(what string, is, want any) {
		if is != want {
			all = append(all, fmt.Sprintf("%s is %v, not %v", what, is, want))
		}
	}
	want := e.job.want
	differs("status", found.Status, want.status)
	differs("attempts", found.Attempts, want.attempts)
	differs("number of runs seen by the application", e.starts, want.attempts)
	differs("number of rows in job_errors", found.Errors, want.errors)
	differs("number of effects", found.Effects, want.effects)
	differs("completed_at set", found.Ended, true)
	if want.status == statusCompleted {
		differs("job named in the result", found.Result, e.job.number)
	} else {
		differs("error set", found.Error != "", true)
	}
	return all
}

// verify compares jobs with their rows and records what differs.
func (l *ledger) verify(jobs []*entry, rows map[string]*row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range jobs {
		l.verified++
		found := rows[e.id]
		all := differences(e, found)
		if len(all) == 0 {
			continue
		}
		if found != nil && found.Error != "" {
			all = append(all, "its error: "+found.Error)
		}
		l.note("%s %s (%s): %s", e.job.jobType, e.id, e.job.scenario, oneLine(strings.Join(all, "; ")))
	}
}
