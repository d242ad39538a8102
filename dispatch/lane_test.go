package dispatch

import (
	"fmt"
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

// A default handler that can't be reached has a bounded number of breakers, however many types meet it; and a single probe for all the
// others.
func TestBreakersOfManyTypes(t *testing.T) {
	t.Parallel()
	l := newLanes(Config{Concurrency: 4, Types: map[string]Type{"own": {Concurrency: 4}, DefaultType: {Concurrency: 4}}}, newMetrics())
	one := func(jobType string, result Result) {
		batch := []*attempt{{job: Job{Type: jobType}, lane: l.of(jobType), answered: time.Now()}}
		l.take(batch)
		l.release(jobType, batch[0].lane, result, batch[0].answered)
		l.settled(1)
	}
	for i := range 10 * maxBreakers {
		one(fmt.Sprint("type", i), Result{Outcome: OutcomeUnavailable})
	}
	if n := l.broken(); n != maxBreakers+1 {
		t.Errorf("%d breakers are open", n)
	}
	if w := l.wants(time.Now()); w.any != 0 || !w.limited || len(w.others) > maxBreakers+1 {
		t.Errorf("%d jobs of all types but %d are wanted while the handler is down", w.any, len(w.others))
	}
	if w := l.wants(time.Now().Add(2 * breakerCap)); w.any > 1 || len(w.types) == 0 {
		t.Errorf("%d jobs are wanted when a probe is due, and of the types %v", w.any, w.types)
	}
	one("another", Done(nil))
	if w := l.wants(time.Now()); w.any != 4 {
		t.Errorf("%d jobs are wanted when it is up again", w.any)
	}
}
