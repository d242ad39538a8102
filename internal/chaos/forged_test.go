package chaos_test

import (
	"fmt"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

// forged are facts that were made up: what a scenario would have left if all had gone well, until a test spoils them.
type forged struct {
	chaos.Facts
	rows map[int]int // index in Jobs, by number
}

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

// Jobs of the forged scenario, by number.
const (
	_        = iota
	plain    // a webhook, done at once
	script   // a subprocess
	refused  // fails for good
	undone   // rolled back
	rerun    // was running where sidecar0.1 was killed, beside casualty
	casualty //
	retried  // its first attempt fails
	unknown  // the commit's answer never came, and it isn't there
	deadly   // died with its sidecar twice already, and runs alone
	numbered // how many there are, and one
)

func forge() *forged {
	f := &forged{rows: map[int]int{}}
	f.up(0, "app.1", 10)
	f.up(0, "sidecar0.1", 100)
	f.up(0, "sidecar1.1", 101)
	f.Workers = []chaos.Worker{{ID: 1, Name: "host:100"}, {ID: 2, Name: "host:101"}}
	types := map[int]string{script: "script", refused: "refused", retried: "flaky"}
	for number := 1; number < numbered; number++ {
		kind := types[number]
		if kind == "" {
			kind = "web"
		}
		spec := chaos.Spec{Number: number, Type: kind, MaxAttempts: 25, Refused: number == refused}
		fate := map[int]chaos.Kind{undone: chaos.RolledBack, unknown: chaos.Unknown}[number]
		if fate == "" {
			fate = chaos.Committed
		}
		f.note(100, chaos.Event{Kind: chaos.Intended, Jobs: []chaos.Spec{spec}})
		f.note(110, chaos.Event{Kind: fate, Jobs: []chaos.Spec{spec}})
		if fate == chaos.Committed {
			f.rows[number] = len(f.Jobs)
			f.Jobs = append(f.Jobs, chaos.Row{ID: id(number), Number: number, Type: kind, Status: "pending", MaxAttempts: 25})
		}
	}
	f.row(deadly).Crashes = 2

	f.attempt(200, 300, plain, 1, "done", "completed")
	f.attempt(200, 300, script, 2, "done", "completed")
	f.attempt(200, 300, refused, 1, "refused", "failed")
	f.attempt(200, 300, retried, 2, "fail", "pending")
	f.attempt(900, 950, retried, 2, "done", "completed")
	for _, number := range []int{rerun, casualty} {
		f.claim(400, number, 1)
		f.start(405, number, "sidecar0.1")
		f.end(1_001, number, "sidecar0.1", "", true)
	}
	f.note(1_000, chaos.Event{Kind: chaos.Struck, Fault: &chaos.Fault{ID: 1, What: "SIGKILL", Whom: []string{"sidecar0.1"}, Kills: true}})
	f.note(1_002, chaos.Event{Kind: chaos.Down, Process: "sidecar0.1", Exit: "signal: killed"})
	f.note(1_003, chaos.Event{Kind: chaos.Relieved, Fault: &chaos.Fault{ID: 1}})
	for _, number := range []int{rerun, casualty} {
		f.reap(2_600, number)
		f.attempt(2_700, 2_800, number, 2, "done", "completed")
	}
	f.attempt(3_000, 3_100, deadly, 2, "done", "completed")
	f.note(5_000, chaos.Event{Kind: chaos.Stopping, Process: "sidecar1.1"})
	f.note(5_100, chaos.Event{Kind: chaos.Down, Process: "sidecar1.1", Exit: "exit status 0"})
	f.note(5_200, chaos.Event{Kind: chaos.Down, Process: "app.1", Exit: "signal: killed"})
	return f
}

func id(number int) string { return fmt.Sprintf("job-%d", number) }

func (f *forged) note(ms int, event chaos.Event) {
	event.At = at(ms)
	f.Events = append(f.Events, event)
}

func (f *forged) up(ms int, process string, pid int) {
	f.note(ms, chaos.Event{Kind: chaos.Up, Process: process, PID: pid})
}

func (f *forged) row(number int) *chaos.Row { return &f.Jobs[f.rows[number]] }

// change writes a transition to what the row is then.
func (f *forged) change(ms, number int, change func(row *chaos.Row, t *chaos.Transition)) {
	row := f.row(number)
	t := chaos.Transition{At: at(ms), Job: row.ID, OldStatus: row.Status, OldLease: row.Lease, OldAttempts: row.Attempts, OldCrashes: row.Crashes}
	if n := len(f.Transitions); row.Lease != "" {
		for _, before := range f.Transitions[:n] {
			if before.NewLease == row.Lease {
				t.OldWorker = before.NewWorker
			}
		}
	}
	change(row, &t)
	t.NewStatus, t.NewLease, t.NewAttempts, t.NewCrashes = row.Status, row.Lease, row.Attempts, row.Crashes
	f.Transitions = append(f.Transitions, t)
}

func (f *forged) claim(ms, number, worker int) {
	f.change(ms, number, func(row *chaos.Row, t *chaos.Transition) {
		row.Status, row.Attempts = "processing", row.Attempts+1
		row.Lease = fmt.Sprintf("lease-%d-%d", number, ms)
		t.NewWorker = worker
	})
}

func (f *forged) settle(ms, number int, status string) {
	f.change(ms, number, func(row *chaos.Row, t *chaos.Transition) {
		if status == "completed" {
			row.ResultLease = row.Lease
		} else {
			row.Error = "not yet"
			f.Errors = append(f.Errors, chaos.FailedAttempt{Job: row.ID, Lease: row.Lease, Attempt: row.Attempts, Error: row.Error})
		}
		row.Status, row.Lease, row.Completed = status, "", status != "pending"
	})
}

func (f *forged) reap(ms, number int) {
	f.change(ms, number, func(row *chaos.Row, t *chaos.Transition) {
		f.Errors = append(f.Errors, chaos.FailedAttempt{Job: row.ID, Lease: row.Lease, Attempt: row.Attempts, Error: "died"})
		row.Status, row.Lease, row.Crashes, row.Attempts = "pending", "", row.Crashes+1, row.Attempts-1
	})
}

func (f *forged) start(ms, number int, process string) {
	row := f.row(number)
	f.note(ms, chaos.Event{Kind: chaos.Started, Job: row.ID, Number: number, Lease: row.Lease, Attempt: row.Attempts, Process: process})
}

func (f *forged) end(ms, number int, process, outcome string, cancelled bool) {
	row := f.row(number)
	f.note(ms, chaos.Event{Kind: chaos.Ended, Job: row.ID, Number: number, Lease: row.Lease, Attempt: row.Attempts, Process: process,
		Outcome: outcome, Cancelled: cancelled})
}

// attempt is a whole one.
func (f *forged) attempt(from, to, number, worker int, outcome, status string) {
	process := map[int]string{1: "sidecar0.1", 2: "sidecar1.1"}[worker]
	f.claim(from, number, worker)
	f.start(from+5, number, process)
	f.end(to-5, number, process, outcome, false)
	f.settle(to, number, status)
}

// event finds the first of a kind of a job.
func (f *forged) event(kind chaos.Kind, number int) *chaos.Event {
	for i := range f.Events {
		if f.Events[i].Kind == kind && f.Events[i].Number == number {
			return &f.Events[i]
		}
	}
	return &chaos.Event{}
}

// transition finds the first of a job to a status.
func (f *forged) transition(number int, status string) *chaos.Transition {
	for i := range f.Transitions {
		if f.Transitions[i].Job == id(number) && f.Transitions[i].NewStatus == status {
			return &f.Transitions[i]
		}
	}
	return &chaos.Transition{}
}

// forget removes a row and all that was told of it but its insert.
func (f *forged) forget(number int) {
	f.Jobs = append(f.Jobs[:f.rows[number]:f.rows[number]], f.Jobs[f.rows[number]+1:]...)
}
