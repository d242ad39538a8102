package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// due has jobs that back off run now.
func (f fixture) due() {
	f.Helper()
	f.exec(`UPDATE jobs SET scheduled_for = now() WHERE status = 'pending' AND scheduled_for > now()`)
}

func TestAJobThatKillsItsWorkersFailsAndItsNeighboursDont(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const lease = 2 * time.Second
	fork := func(name string) *sidecar {
		s := f.forkSidecar(spec{Name: name, LeaseTime: lease, Types: map[string]int{"work": 20}})
		s.await(ready, "")
		return s
	}
	first := fork("first")
	f.awaitServerAge(lease)
	// In one statement, so that they are claimed together.
	f.exec(`INSERT INTO jobs (type, payload) SELECT 'work', '{"for": 400}'::jsonb FROM generate_series(1, 5)
		UNION ALL SELECT 'work', '{"kill": true}'::jsonb`)
	const poison, innocent = `payload ? 'kill'`, `payload ? 'for'`
	second := fork("second")
	f.eventually("the second runs them, too", func() bool {
		return slices.ContainsFunc(second.records(), func(r record) bool { return r.What == start && r.Sidecar == "second" })
	})
	fork("third")
	fork("fourth")
	f.eventually("the second worker's death is noticed", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE crashes = 2 AND attempts = 0 AND status = 'pending'`) == 6
	})
	if n := f.count(`SELECT count(*) FROM jobs WHERE scheduled_for BETWEEN now() + interval '20 s' AND now() + interval '38 s'`); n == 0 {
		t.Errorf("none of them backs off for half a minute")
	}
	if n := f.count(`SELECT count(*) FROM job_errors WHERE error LIKE 'worker % died % and others'`); n != 12 {
		t.Errorf("%d of 12 ends are noted", n)
	}

	f.eventuallyWithin(40*time.Second, "all have ended", func() bool {
		f.due()
		return f.count(`SELECT count(*) FROM jobs WHERE status IN ('completed', 'failed')`) == 6
	})
	if n := f.count(`SELECT count(*) FROM jobs WHERE status = 'completed' AND attempts = 1 AND crashes = 2 AND ` + innocent); n != 5 {
		t.Errorf("%d of 5 neighbours have completed at their first attempt that counts", n)
	}
	var got string
	if err := f.pool.QueryRow(t.Context(), `SELECT format('%s, attempts %s, crashes %s: %s', status, attempts, crashes, error) FROM jobs WHERE `+poison).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "failed, attempts 3, crashes 3: worker ") || !strings.HasSuffix(got, "alone; that was its last attempt: 3 of 3 ended with the death of its worker") {
		t.Errorf("the job that kills its workers: %s", got)
	}
	var alone []record
	for _, r := range first.records() { // all write to the same file
		if r.Sidecar == "third" || r.Sidecar == "fourth" {
			alone = append(alone, r)
		}
	}
	running := map[string]string{}
	for _, r := range alone {
		switch r.What {
		case start:
			if other := running[r.Sidecar]; other != "" {
				t.Errorf("job %s started beside %s in %s", r.Job, other, r.Sidecar)
			}
			running[r.Sidecar] = r.Job
		case end:
			running[r.Sidecar] = ""
		}
	}
}

func TestSolitude(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "s", Types: map[string]int{"work": 20}})
	s.await(ready, "")
	suspect := func(what order) string {
		return f.insert(`INSERT INTO jobs (type, payload, crashes) VALUES ('work', $1, 2) RETURNING id`, what)
	}
	neighbour := f.enqueue("work", order{For: 700}, 3)
	s.await(start, neighbour)
	alone := suspect(order{For: 300})
	f.eventually("it is claimed, and waits", func() bool { return f.job(alone).Status == "processing" })
	later := f.enqueue("work", order{}, 3)
	cancelled := suspect(order{For: 300}) // not claimed before the first has ended
	f.exec(`SELECT cancel_job($1)`, cancelled)
	for _, id := range []string{alone, later} {
		if got := f.until(id, "completed"); got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
	}
	if was, begun := s.await(end, neighbour), s.await(start, alone); begun.At < was.At {
		t.Errorf("it began %s before its neighbour's end", was.At-begun.At)
	}
	if was, begun := s.await(end, alone), s.await(start, later); begun.At < was.At {
		t.Errorf("another began %s before its end", was.At-begun.At)
	}
	f.until(cancelled, "cancelled")

	// Somebody has locked the row of one that ran alone, so that its outcome waits: others don't.
	locked := suspect(order{For: 500})
	s.await(start, locked)
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }() // committed by then, or the test has failed
	if _, err := tx.Exec(t.Context(), `SELECT FROM jobs WHERE id = $1 FOR UPDATE`, locked); err != nil {
		t.Fatal(err)
	}
	s.await(end, locked)
	f.until(f.enqueue("work", order{}, 3), "completed")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until(locked, "completed")

	// Several at once: one stays, the others come back.
	f.exec(`INSERT INTO jobs (type, payload, crashes) SELECT 'work', '{"for": 100}', 2 FROM generate_series(1, 4)`)
	f.eventually("all are completed", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE crashes = 2 AND status = 'completed' AND attempts = 1`) == 6
	})

	// One that waits is given back at a shutdown, and one whose cancel is asked for does not run.
	blocked := f.enqueue("work", order{BlockIn: "s"}, 3)
	s.await(start, blocked)
	waits := suspect(order{})
	f.eventually("it waits", func() bool { return f.job(waits).Status == "processing" })
	f.exec(`SELECT cancel_job($1)`, waits)
	f.until(waits, "cancelled")
	waits = suspect(order{})
	f.eventually("it waits", func() bool { return f.job(waits).Status == "processing" })
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	if got := f.until(waits, "pending"); got.Attempts != 0 {
		t.Errorf("given back: %+v", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, ran := s.find(start, waits); ran {
		t.Error("it ran in a sidecar that was leaving")
	}
	runs(t, nil, s)
}

// Nobody may start a job again that is to be tried once, and a job that died alone has nobody else to blame.
func TestReapCountsDeaths(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	worker := func(dead string) int {
		return f.count(`INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after, heartbeat_at, dead_at)
			VALUES ('w', 'v', 3, 1, '{}', '1 s', '1 s', now() - interval '1 h', ` + dead + `) RETURNING id`)
	}
	hold := func(worker, attempts, maxAttempts, crashes int) string {
		return f.insert(`INSERT INTO jobs (type, status, lease, worker_id, attempts, max_attempts, crashes)
			VALUES ('work', 'processing', gen_random_uuid(), $1, $2, $3, $4) RETURNING id`, worker, attempts, maxAttempts, crashes)
	}
	together, alone, unmarked := worker("NULL"), worker("NULL"), worker("now()") // the last by a sidecar of before
	for name, test := range map[string]struct {
		id   string
		want string
	}{
		"in company":                    {hold(together, 1, 3, 0), "pending, attempts 0, crashes 1"},
		"in company, last attempt":      {hold(together, 3, 3, 0), "pending, attempts 2, crashes 1"},
		"in company, to be tried once":  {hold(together, 1, 1, 0), "failed, attempts 1, crashes 1"},
		"in company, again":             {hold(together, 1, 3, 1), "pending, attempts 0, crashes 2"},
		"in company, waiting":           {hold(together, 1, 3, 2), "pending, attempts 0, crashes 2"},
		"alone, after two in company":   {hold(alone, 1, 3, 2), "failed, attempts 3, crashes 3"},
		"marked dead by one of before":  {hold(unmarked, 1, 3, 0), "pending, attempts 1, crashes 1"},
		"without a worker's row, alone": {hold(1000, 1, 3, 1), "pending, attempts 2, crashes 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := f
			f.T = t
			f.eventually("it is reaped", func() bool {
				return f.count(`SELECT count(*) FROM jobs WHERE id = $1 AND lease IS NULL`, test.id) == 1
			})
			got := f.job(test.id)
			if text := fmt.Sprintf("%s, attempts %d, crashes %d", got.Status, got.Attempts, got.Crashes); text != test.want {
				t.Errorf("%s, wanted %s", text, test.want)
			}
			backsOff := f.count(`SELECT count(*) FROM jobs WHERE id = $1 AND scheduled_for > updated_at + interval '15 s'`, test.id) == 1
			if backsOff != (got.Status == "pending" && got.Crashes == 2) {
				t.Errorf("backs off: %t, after %d crashes", backsOff, got.Crashes)
			}
		})
	}
	f.goSidecar(spec{Name: "reaper", Types: map[string]int{"other": 1}}) // the subtests run when this function has returned
}
