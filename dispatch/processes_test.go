package dispatch_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

// attemptRun is one run of a handler.
type attemptRun struct {
	sidecar string
	attempt int
	from    time.Duration
	to      time.Duration // of one that was cut off: when its process was killed
}

// runs are the runs of each job, in the order of their starts. killed says when processes were.
func runs(t *testing.T, killed map[string]time.Duration, sidecars ...*sidecar) map[string][]attemptRun {
	t.Helper()
	byLease := map[string]attemptRun{}
	jobs := map[string]string{}
	for _, s := range sidecars {
		for _, r := range s.records() {
			one, begun := byLease[r.Lease]
			switch {
			case r.What == start && begun:
				t.Errorf("lease %s of job %s started twice, in %s and %s", r.Lease, r.Job, one.sidecar, r.Sidecar)
			case r.What == start:
				byLease[r.Lease] = attemptRun{sidecar: r.Sidecar, attempt: r.Attempt, from: r.At, to: killed[r.Sidecar]}
				jobs[r.Lease] = r.Job
			case r.What == end:
				one.to = r.At
				byLease[r.Lease] = one
			}
		}
	}
	byJob := map[string][]attemptRun{}
	for lease, one := range byLease {
		if one.to == 0 {
			t.Errorf("job %s in %s: no end of attempt %d", jobs[lease], one.sidecar, one.attempt)
		}
		byJob[jobs[lease]] = append(byJob[jobs[lease]], one)
	}
	for id, all := range byJob {
		slices.SortFunc(all, func(a, b attemptRun) int { return int(a.from - b.from) })
		for i := 1; i < len(all); i++ {
			if all[i].from < all[i-1].to {
				t.Errorf("job %s ran twice at once: %+v, %+v", id, all[i-1], all[i])
			}
		}
	}
	return byJob
}

func TestEightProcessesRunEachJobOnce(t *testing.T) {
	t.Parallel()
	const processes, total, inserters = 8, 20_000, 4
	f := newFixture(t)
	f.exec(`CREATE TABLE wanted (id uuid PRIMARY KEY)`)
	var sidecars []*sidecar
	for i := range processes {
		sidecars = append(sidecars, f.forkSidecar(spec{
			Name: fmt.Sprintf("p%d", i), Concurrency: 40,
			Types: map[string]int{"a": 10, "b": 20, "c": 40, "d": 3 + i, "*": 10},
		}))
	}
	for _, s := range sidecars {
		s.await(ready, "")
	}

	began := time.Now()
	var inserting sync.WaitGroup
	for range inserters {
		inserting.Go(func() {
			for left := total / inserters; left > 0; {
				n := min(1+rand.IntN(100), left)
				left -= n
				_, err := f.pool.Exec(t.Context(), `WITH made AS (
					INSERT INTO jobs (type, priority, payload, scheduled_for)
					SELECT ('{a,b,c,d,other1,other2}'::text[])[1 + n % 6], n % 5 - 2, jsonb_build_object('for', n % 3),
						now() + (n % 4) * interval '100 ms'
					FROM generate_series(1, $1) n RETURNING id)
				INSERT INTO wanted SELECT id FROM made`, n)
				if err != nil {
					t.Errorf("insert: %v", err)
					return
				}
			}
		})
	}
	inserting.Wait()
	inserted := time.Since(began)
	f.eventuallyWithin(45*time.Second, "all are completed", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE status IN ('pending', 'processing')`) == 0
	})
	t.Logf("%d jobs in %s, inserted in %s", total, time.Since(began).Round(time.Millisecond), inserted.Round(time.Millisecond))

	var stopping sync.WaitGroup
	for _, s := range sidecars {
		stopping.Go(func() {
			if err := s.stop(); err != nil {
				t.Errorf("stop %s: %v", s.Name, err)
			}
		})
	}
	stopping.Wait()
	if n := f.count(`SELECT count(*) FROM wanted`); n != total {
		t.Errorf("%d jobs were inserted, not %d", n, total)
	}
	if n := f.count(`SELECT count(*) FROM wanted LEFT JOIN jobs j USING (id)
		WHERE (j.status = 'completed' AND j.attempts = 1 AND j.crashes = 0 AND j.lease IS NULL AND j.worker_id IS NULL) IS NOT TRUE`); n != 0 {
		t.Errorf("%d jobs are not completed by their first attempt", n)
	}
	if n := f.count(`SELECT count(*) FROM job_errors`) + f.count(`SELECT count(*) FROM job_workers`); n != 0 {
		t.Errorf("%d rows in job_errors and job_workers", n)
	}
	byJob := runs(t, nil, sidecars...)
	by := map[string]int{}
	for id, all := range byJob {
		by[all[0].sidecar]++
		if len(all) != 1 {
			t.Errorf("job %s ran %d times: %+v", id, len(all), all)
		}
	}
	if len(byJob) != total {
		t.Errorf("%d jobs ran, not %d", len(byJob), total)
	}
	t.Logf("jobs by process: %v", by)
	if len(by) != processes {
		t.Errorf("only %d processes ran jobs", len(by))
	}
}

func TestKilledWorkersJobsRunElsewhere(t *testing.T) {
	t.Parallel()
	for _, variant := range []struct {
		name     string
		spec     spec
		promised time.Duration
	}{
		{"presence", spec{LeaseTime: 15 * time.Second}, 5 * time.Second},
		{"heartbeats", spec{LeaseTime: 2 * time.Second, NoPresence: true}, 5 * time.Second},
	} {
		t.Run(variant.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			fork := variant.spec
			fork.Name, fork.Types = "victim", map[string]int{"work": 10}
			victim := f.forkSidecar(fork)
			fork.Name, fork.Types = "healthy", map[string]int{"work": 10, "long": 1}
			healthy := f.goSidecar(fork)
			victim.await(ready, "")
			healthy.await(ready, "")
			f.awaitServerAge(variant.spec.LeaseTime)
			long := f.enqueue("long", order{For: 5000}, 3)
			healthy.await(start, long)

			ids := []string{
				f.enqueueFor(victim, "work", order{BlockIn: "victim"}, 1),
				f.enqueueFor(victim, "work", order{BlockIn: "victim"}, 3),
			}
			last, again := ids[0], ids[1]
			worker := victim.worker()
			killedAt := sharedNow()
			victim.signal(syscall.SIGKILL)
			rerun := healthy.await(start, again)
			took := rerun.At - killedAt
			t.Logf("from SIGKILL to the next start: %s", took.Round(time.Millisecond))
			if took > variant.promised {
				t.Errorf("re-run after %s, promised within %s", took, variant.promised)
			}

			cause := fmt.Sprintf("worker %d died", worker)
			got := f.until(again, "completed")
			if got.Attempts != 1 || got.Crashes != 1 || got.Errors != 1 { // the attempt was given back: which of the two killed it?
				t.Errorf("re-run job: %+v", got)
			}
			got = f.until(last, "failed")
			if got.Attempts != 1 || got.Crashes != 1 || got.Errors != 1 || got.Error == nil || !got.Completed ||
				!strings.Contains(*got.Error, cause) || !strings.Contains(*got.Error, "last attempt") {
				t.Errorf("job without attempts left: %+v, error %q", got, deref(got.Error))
			}
			if n := f.count(`SELECT count(*) FROM job_errors WHERE job_id = ANY ($1) AND attempt = 1 AND worker_id = $2
				AND started_at IS NOT NULL AND starts_with(error, $3)`, ids, worker, cause); n != 2 {
				t.Errorf("%d rows in job_errors name the worker, not 2", n)
			}
			got = f.until(long, "completed")
			if got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 {
				t.Errorf("job of the healthy worker: %+v", got)
			}
			runs(t, map[string]time.Duration{"victim": killedAt}, victim, healthy)
		})
	}
}

func TestStoppedProcessComesBackAsAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	asleep := f.forkSidecar(spec{Name: "asleep", LeaseTime: 2 * time.Second, Types: map[string]int{"work": 10, "own": 1}})
	asleep.await(ready, "")
	// One is cancelled when it finds that its lease is gone, and claims success all the same; the other ends by itself as
	// soon as the process goes on.
	cancelled := f.enqueue("work", order{BlockIn: "asleep", Insist: true}, 3)
	ended := f.enqueue("work", order{For: 1500}, 3)
	asleep.await(start, cancelled)
	asleep.await(start, ended)
	before := asleep.worker()
	asleep.signal(syscall.SIGSTOP)

	other := f.goSidecar(spec{Name: "other", Types: map[string]int{"work": 10}})
	for _, id := range []string{cancelled, ended} {
		if got := f.until(id, "completed"); got.Attempts != 1 || got.Crashes != 1 || string(got.Result) != `{"by": "other"}` {
			t.Errorf("taken over: %+v", got)
		}
		other.await(end, id)
	}
	snapshot := func() string {
		var rows string
		if err := f.pool.QueryRow(t.Context(), `SELECT string_agg(xmin::text || j::text, ' ' ORDER BY id) FROM jobs j WHERE id = ANY ($1)`,
			[]string{cancelled, ended}).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	settled := snapshot()
	asleep.signal(syscall.SIGCONT)

	// It was stopped between two heartbeats, or in the middle of one, which then comes too late.
	got := asleep.await(end, cancelled)
	if got.Cause != dispatch.ErrLeaseLost.Error() && got.Cause != dispatch.ErrLeaseEnding.Error() {
		t.Errorf("the context's cause was %q", got.Cause)
	}
	own := f.enqueue("own", order{}, 3)
	if got := f.until(own, "completed"); got.Attempts != 1 {
		t.Errorf("job after it: %+v", got)
	}
	asleep.await(end, ended)
	if now := asleep.worker(); now == before {
		t.Errorf("still worker %d", now)
	}
	if n := f.count(`SELECT count(*) FROM job_workers WHERE id = $1 AND dead_at IS NOT NULL`, before); n != 1 {
		t.Errorf("%d rows of the dead worker", n)
	}
	// All that it had to write is written when it has ended.
	if err := asleep.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if now := snapshot(); now != settled {
		t.Errorf("rows of the jobs that it had lost were changed:\n%s\n%s", settled, now)
	}
}

func TestTerminatedProcessHandsItsJobsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	leaving := f.forkSidecar(spec{Name: "leaving", Grace: 1500 * time.Millisecond, Types: map[string]int{"work": 20}})
	leaving.await(ready, "")
	var quick, blocked []string
	for range 5 {
		quick = append(quick, f.enqueue("work", order{For: 700}, 3))
		blocked = append(blocked, f.enqueue("work", order{BlockIn: "leaving"}, 1))
	}
	for _, id := range slices.Concat(quick, blocked) {
		leaving.await(start, id)
	}
	other := f.goSidecar(spec{Name: "other", Types: map[string]int{"work": 20}})
	other.await(ready, "")
	if err := leaving.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if n := f.count(`SELECT count(*) FROM job_workers WHERE name = 'leaving'`); n != 0 {
		t.Errorf("%d rows of the worker that is gone", n)
	}
	for _, id := range quick {
		if got := f.job(id); got.Status != "completed" || got.Attempts != 1 || string(got.Result) != `{"by": "leaving"}` {
			t.Errorf("job that ended within the grace period: %+v", got)
		}
	}
	for _, id := range blocked {
		left, taken := leaving.await(end, id), other.await(start, id)
		if left.Cause != dispatch.ErrShutdown.Error() {
			t.Errorf("the context's cause was %q", left.Cause)
		}
		if took := taken.At - left.At; took > 2*time.Second {
			t.Errorf("handed back, and run after %s", took)
		}
		got := f.until(id, "completed")
		if got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 || string(got.Result) != `{"by": "other"}` {
			t.Errorf("job that was handed back: %+v", got)
		}
	}
	runs(t, nil, leaving, other)

	idle := f.forkSidecar(spec{Name: "idle", Types: map[string]int{"idle": 1}})
	idle.await(ready, "")
	if err := idle.stop(); err != nil {
		t.Errorf("stop idle one: %v", err)
	}
	if err := other.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if n := f.count(`SELECT count(*) FROM job_workers`); n != 0 {
		t.Errorf("%d rows in job_workers when all are gone", n)
	}
}

// Each is judged by the other, and idle before: the rhythm of its heartbeats has to follow.
func TestLongJobsOutliveTheLease(t *testing.T) {
	t.Parallel()
	for _, noPresence := range []bool{false, true} {
		t.Run(fmt.Sprintf("noPresence=%t", noPresence), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var ids []string
			for _, name := range []string{"one", "two"} {
				s := f.goSidecar(spec{Name: name, NoPresence: noPresence, LeaseTime: 3 * time.Second, Types: map[string]int{name: 1}})
				s.await(ready, "")
			}
			for _, name := range []string{"one", "two"} {
				ids = append(ids, f.enqueue(name, order{For: 7000}, 3))
			}
			for _, id := range ids {
				if got := f.until(id, "completed"); got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 {
					t.Errorf("long job: %+v", got)
				}
			}
		})
	}
}

// awaitServerAge waits until the server has run for a lease time: before, missing presence proves nothing.
func (f fixture) awaitServerAge(leaseTime time.Duration) {
	f.Helper()
	f.eventuallyWithin(leaseTime+5*time.Second, "the server is old enough", func() bool {
		return f.count(`SELECT count(*) WHERE pg_postmaster_start_time() < clock_timestamp() - $1::float8 * interval '1 s'`, leaseTime.Seconds()) == 1
	})
}

// eventuallyWithin is eventually for what may take longer.
func (f fixture) eventuallyWithin(limit time.Duration, what string, condition func() bool) {
	f.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			f.Fatalf("not within %s: %s", limit, what)
		case <-tick.C:
		}
	}
}
