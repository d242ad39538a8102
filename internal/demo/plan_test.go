package demo

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPlanOpensWithEveryScenario(t *testing.T) {
	t.Parallel()
	p := newPlan(1)
	for i, want := range scenarios {
		got, ok := p.next(0, false)
		if !ok || got.scenario != want {
			t.Fatalf("batch %d is %+v, want %+v", i, got.scenario, want)
		}
	}
}

func TestPlanKeepsToTheWeights(t *testing.T) {
	t.Parallel()
	p := newPlan(1)
	total := 0
	for _, s := range scenarios {
		total += s.weight
		if _, ok := p.next(0, false); !ok {
			t.Fatal("no batch")
		}
	}
	counts := map[scenario]int{}
	for range 3 * total {
		got, _ := p.next(0, false)
		counts[got.scenario]++
	}
	for _, s := range scenarios {
		if counts[s] != 3*s.weight {
			t.Errorf("%s %s came %d times in three rounds, want %d", s.name, s.jobType, counts[s], 3*s.weight)
		}
	}
}

// Whatever is left, each job that is dealt ends in time, and its expectation follows from what it is told to do.
func TestPlanDealsWhatCanEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPlan(rapid.Uint64().Draw(t, "seed"))
		numbers := map[int64]bool{}
		for _, left := range rapid.SliceOfN(rapid.Int64Range(-1e9, 5e9), 1, 80).Draw(t, "left") {
			left := time.Duration(left)
			batch, ok := p.next(left, true)
			if !ok {
				if left >= slack {
					t.Fatalf("nothing to do with %s left", left)
				}
				continue
			}
			for _, job := range batch.jobs {
				if numbers[job.number] {
					t.Fatalf("number %d was used before", job.number)
				}
				numbers[job.number] = true
				checkJob(t, job, left)
			}
		}
	})
}

func checkJob(t *rapid.T, job plannedJob, left time.Duration) {
	needs := job.delay + slack
	wait := float64(backoffBase) * (1 + backoffJitter)
	for range job.want.attempts - 1 {
		needs += time.Duration(wait)
		wait *= backoffFactor
	}
	if needs > left {
		t.Fatalf("%+v needs %s, but %s are left", job, needs, left)
	}
	if job.delay != 0 && (job.delay < shortestDelay || job.delay > longestDelay) {
		t.Fatalf("%+v: delay is not between %s and %s", job, shortestDelay, longestDelay)
	}
	attempts := job.maxAttempts
	if attempts == 0 {
		attempts = 3
	}
	want := expectation{status: statusCompleted, attempts: job.payload.Fails + 1, errors: job.payload.Fails}
	switch {
	case job.payload.Permanent:
		want = expectation{status: statusFailed, attempts: 1, errors: 1}
	case job.payload.Fails >= attempts:
		want = expectation{status: statusFailed, attempts: attempts, errors: attempts}
	case job.jobType == typePayment:
		want.effects = 1
	}
	if job.want != want {
		t.Fatalf("%+v: expects %+v, but its payload and attempts lead to %+v", job, job.want, want)
	}
}

func TestPlanRepeatsItselfBySeed(t *testing.T) {
	t.Parallel()
	deal := func(seed uint64) (all []batch) {
		p := newPlan(seed)
		for range 200 {
			b, _ := p.next(0, false)
			all = append(all, b)
		}
		return all
	}
	if !reflect.DeepEqual(deal(7), deal(7)) {
		t.Error("the same seed deals differently")
	}
	if reflect.DeepEqual(deal(7), deal(8)) {
		t.Error("another seed deals the same")
	}
}
