package dispatch

import (
	"testing"
	"time"
)

// Jobs whose claim was answered just before their type's breaker opened are no probes: what they say is nothing new.
func TestBreakerIsProbedAfterALateClaim(t *testing.T) {
	t.Parallel()
	config := Config{Concurrency: 4, Types: map[string]Type{"down": {Concurrency: 4}}}
	l := newLanes(config, newMetrics())
	lane := l.of("down")
	attemptNow := func() []*attempt { return []*attempt{{job: Job{Type: "down"}, lane: lane, answered: time.Now()}} }
	first, late := attemptNow(), attemptNow()
	l.take(first)
	l.release("down", lane, Result{Outcome: OutcomeUnavailable}, first[0].answered)
	l.take(late)
	l.release("down", lane, Result{Outcome: OutcomeUnavailable}, late[0].answered)
	l.settled(2)
	if w := l.wants(time.Now()); w.probeAt.IsZero() {
		t.Error("no probe is to come")
	}
	if w := l.wants(time.Now().Add(2 * breakerBase)); len(w.types) != 1 || w.most[0] != 1 {
		t.Errorf("%v of %v are wanted when the probe is due, want one", w.most, w.types)
	}
}
