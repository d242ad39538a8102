package chaos_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

var allowed = chaos.Allowed{Late: time.Second, Recovery: 5 * time.Second, RecoveryP50: 2500 * time.Millisecond, Resume: time.Second}

func TestCheckAcceptsWhatWentWell(t *testing.T) {
	t.Parallel()
	violations, figures := chaos.Check(&forge().Facts, allowed)
	for _, v := range violations {
		t.Errorf("%s: %s\n%v", v.Breach, v.Detail, v.Evidence)
	}
	if figures.Jobs != 7 || figures.Reaped != 2 || figures.Faults != 1 || figures.Overlaps != 0 {
		t.Errorf("figures: %+v", figures)
	}
	if want := 1705 * time.Millisecond; figures.RecoveryP50 != want || figures.RecoveryMax != want {
		t.Errorf("recovery %s, %s, not %s", figures.RecoveryP50, figures.RecoveryMax, want)
	}
}

// Each kind of violation is found: the checker can fail.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		want  chaos.Breach
		spoil func(f *forged)
	}{
		{"a committed job without a row", chaos.Lost, func(f *forged) { f.forget(plain) }},
		{"a job that is still pending", chaos.Lost, func(f *forged) { f.row(plain).Status = "pending" }},
		{"a job that is still processing", chaos.Lost, func(f *forged) { f.row(plain).Status = "processing" }},
		{"failed instead of completed", chaos.WrongEnd, func(f *forged) { f.row(plain).Status = "failed" }},
		{"completed instead of failed", chaos.WrongEnd, func(f *forged) { f.row(refused).Status = "completed" }},
		{"ended with a lease", chaos.WrongEnd, func(f *forged) { f.row(plain).Lease = "lease" }},
		{"ended without a time", chaos.WrongEnd, func(f *forged) { f.row(plain).Completed = false }},
		{"failed without an error", chaos.WrongEnd, func(f *forged) { f.row(refused).Error = "" }},
		{"a row that was rolled back", chaos.Ghost, func(f *forged) {
			f.Jobs = append(f.Jobs, chaos.Row{ID: "ghost", Number: undone, Status: "pending"})
		}},
		{"a run that was rolled back", chaos.Ghost, func(f *forged) {
			f.note(300, chaos.Event{Kind: chaos.Started, Job: "ghost", Number: undone, Lease: "lease"})
		}},
		{"a job that is there twice", chaos.Ghost, func(f *forged) {
			twin := *f.row(plain)
			twin.ID = "twin"
			f.Jobs = append(f.Jobs, twin)
		}},
		{"two attempts at a time", chaos.Overlap, func(f *forged) { f.event(chaos.Ended, retried).At = at(920) }},
		{"an attempt that was cancelled and goes on", chaos.Overlap, func(f *forged) {
			ended := f.event(chaos.Ended, retried)
			ended.At, ended.Cancelled = at(1600), true
		}},
		{"one claim, two starts", chaos.SentTwice, func(f *forged) { f.Events = append(f.Events, *f.event(chaos.Started, plain)) }},
		{"a healthy sidecar's job reaped", chaos.HealthyReap, func(f *forged) { f.transition(retried, "pending").NewCrashes = 1 }},
		{"reaped before the fault", chaos.HealthyReap, func(f *forged) { f.transition(rerun, "pending").At = at(990) }},
		{"reaped from nobody's worker", chaos.HealthyReap, func(f *forged) { f.Workers = f.Workers[1:] }},
		{"reaped where the fault was harmless", chaos.HealthyReap, func(f *forged) {
			for i := range f.Events {
				if f.Events[i].Fault != nil {
					f.Events[i].Fault.Harmless = true
				}
			}
			f.transition(rerun, "pending").At = at(1_001)
		}},
		{"left behind by an orderly exit", chaos.LeftBehind, func(f *forged) {
			f.note(999, chaos.Event{Kind: chaos.Stopping, Process: "sidecar0.1"})
			for i := range f.Events {
				if f.Events[i].Kind == chaos.Down && f.Events[i].Process == "sidecar0.1" {
					f.Events[i].Exit = "exit status 0"
				}
			}
		}},
		{"a result of another lease", chaos.StaleSettle, func(f *forged) { f.row(rerun).ResultLease = "lease-5-400" }},
		{"completed by nobody's word", chaos.Unfounded, func(f *forged) { f.event(chaos.Ended, plain).Outcome = "fail" }},
		{"completed without a run", chaos.Unfounded, func(f *forged) {
			f.Events = slices.DeleteFunc(f.Events, func(e chaos.Event) bool { return e.Number == plain })
		}},
		{"claimed while processing", chaos.BadFence, func(f *forged) { f.transition(retried, "pending").NewStatus = "processing" }},
		{"a lease used twice", chaos.BadFence, func(f *forged) {
			for i := range f.Transitions {
				t := &f.Transitions[i]
				for _, lease := range []*string{&t.OldLease, &t.NewLease} {
					if *lease == "lease-7-900" {
						*lease = "lease-7-200"
					}
				}
			}
		}},
		{"a change of a final state", chaos.BadFence, func(f *forged) {
			f.change(4_000, plain, func(row *chaos.Row, _ *chaos.Transition) { row.Status = "pending" })
			f.settle(4_100, plain, "completed")
		}},
		{"a run that was never claimed", chaos.BadFence, func(f *forged) {
			f.note(400, chaos.Event{Kind: chaos.Started, Job: id(plain), Number: plain, Lease: "lease", Process: "sidecar1.1"})
		}},
		{"a claim that counts two attempts", chaos.Miscounted, func(f *forged) { f.transition(plain, "processing").NewAttempts = 2 }},
		{"an attempt that vanished", chaos.Miscounted, func(f *forged) { f.row(plain).Attempts = 0 }},
		{"a failed attempt that isn't noted", chaos.Miscounted, func(f *forged) { f.Errors = nil }},
		{"a note of an attempt that never was", chaos.Miscounted, func(f *forged) {
			f.Errors = append(f.Errors, chaos.FailedAttempt{Job: id(plain), Lease: "lease"})
		}},
		{"a handler that was told another attempt", chaos.Miscounted, func(f *forged) { f.event(chaos.Started, plain).Attempt = 2 }},
		{"a death in company that costs an attempt", chaos.Miscounted, func(f *forged) { f.transition(rerun, "pending").NewAttempts++ }},
		{"a death alone that costs none", chaos.Miscounted, func(f *forged) {
			f.Transitions = slices.DeleteFunc(f.Transitions, func(t chaos.Transition) bool { return t.Job == id(casualty) })
		}},
		{"a late start", chaos.LateStart, func(f *forged) { f.event(chaos.Started, plain).At = at(1_200) }},
		{"a slow recovery", chaos.SlowRecovery, func(f *forged) {
			for i := range f.Events {
				if e := &f.Events[i]; e.Number == rerun && e.At.After(at(2_000)) {
					e.At = e.At.Add(4 * time.Second)
				}
			}
		}},
		{"a median that is slow", chaos.SlowRecovery, func(f *forged) {
			for i := range f.Events {
				if e := &f.Events[i]; (e.Number == rerun || e.Number == casualty) && e.At.After(at(2_000)) {
					e.At = e.At.Add(time.Second)
				}
			}
		}},
		{"a slow return after a fault of all", chaos.SlowRecovery, func(f *forged) {
			f.note(1_200, chaos.Event{Kind: chaos.Struck, Fault: &chaos.Fault{ID: 2, What: "database gone"}})
			f.note(1_300, chaos.Event{Kind: chaos.Relieved, Fault: &chaos.Fault{ID: 2}})
		}},
		{"a subprocess that outlives its sidecar", chaos.Orphan, func(f *forged) {
			f.event(chaos.Started, script).Process = "sidecar0.1"
			f.event(chaos.Ended, script).At = at(2_100)
		}},
		{"two deaths, and others beside it", chaos.Company, func(f *forged) {
			f.event(chaos.Started, plain).Process = "sidecar1.1"
			f.event(chaos.Ended, plain).At = at(3_050)
		}},
		{"a job that was completed unseen", chaos.BadFence, func(f *forged) {
			f.Transitions = slices.DeleteFunc(f.Transitions, func(t chaos.Transition) bool { return t.Job == id(plain) })
			f.Events = slices.DeleteFunc(f.Events, func(e chaos.Event) bool { return e.Number == plain })
			f.row(plain).Attempts = 0
		}},
		{"an attempt that was failed while its handler ran", chaos.StaleSettle, func(f *forged) {
			f.event(chaos.Ended, refused).At = at(900)
		}},
		{"a sidecar that a fault should not have ended", chaos.EndedBadly, func(f *forged) {
			for i := range f.Events {
				if f.Events[i].Fault != nil {
					f.Events[i].Fault.Kills = false
				}
			}
		}},
		{"a sidecar that ended unasked", chaos.EndedBadly, func(f *forged) {
			f.Events = slices.DeleteFunc(f.Events, func(e chaos.Event) bool { return e.Kind == chaos.Stopping })
		}},
		{"a sidecar that ended with an error", chaos.EndedBadly, func(f *forged) {
			for i := range f.Events {
				if f.Events[i].Exit == "exit status 0" {
					f.Events[i].Exit = "exit status 1"
				}
			}
		}},
		{"a sidecar that never ended", chaos.EndedBadly, func(f *forged) {
			f.Events = slices.DeleteFunc(f.Events, func(e chaos.Event) bool { return e.Exit == "exit status 0" })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := forge()
			test.spoil(f)
			slices.SortStableFunc(f.Events, func(a, b chaos.Event) int { return a.At.Compare(b.At) })
			violations, figures := chaos.Check(&f.Facts, allowed)
			if !slices.ContainsFunc(violations, func(v chaos.Violation) bool { return v.Breach == test.want }) || figures.Breach[test.want] == 0 {
				t.Errorf("found %+v, not %q", violations, test.want)
			}
		})
	}
}

func TestOverlapAfterAReapIsCounted(t *testing.T) {
	t.Parallel()
	f := forge()
	ended := f.event(chaos.Ended, rerun)
	ended.At, ended.Cancelled = at(2_750), false
	violations, figures := chaos.Check(&f.Facts, allowed)
	if len(violations) != 0 || figures.Overlaps != 1 {
		t.Errorf("%d overlaps, violations %v", figures.Overlaps, violations)
	}
}

// A database whose clock is stepped puts other times into the audit.
func TestClockStepsAreTakenOut(t *testing.T) {
	t.Parallel()
	f := forge()
	f.Events = append([]chaos.Event{{At: at(2_000), Kind: chaos.Clock, Offset: time.Hour}}, f.Events...)
	for i := range f.Transitions {
		if f.Transitions[i].At.After(at(2_000)) {
			f.Transitions[i].At = f.Transitions[i].At.Add(time.Hour)
		}
	}
	if violations, _ := chaos.Check(&f.Facts, allowed); len(violations) != 0 {
		t.Errorf("violations: %v", violations)
	}
}
