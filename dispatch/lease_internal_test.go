package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// leasedJob is a job as the reference has it, and as the database does.
type leasedJob struct {
	Status    string
	Attempts  int
	Lease     string // "" where there is none
	Worker    int32  // 0: nobody's
	Cancelled bool   // a cancel was asked for
}

// leaseHolder is a worker as the reference has it.
type leaseHolder struct{ gone, dead bool }

// claimRecord is a lease that was given out once.
type claimRecord struct{ job, lease string }

// leaseMachine says what each statement has to do, and has the database do it, over several connections in turn.
type leaseMachine struct {
	conns   []*pgx.Conn
	sql     statements
	jobs    map[string]*leasedJob
	order   []string
	workers map[int32]*leaseHolder
	numbers []int32
	claims  []claimRecord
}

// The statements do what lease.pml says of them: in any order, from any connection, by holders of current and of old leases.
func TestStatementsKeepLeases(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conns := []*pgx.Conn{connect(t, url), connect(t, url), connect(t, url)}
	rapid.Check(t, func(t *rapid.T) {
		m := &leaseMachine{conns: conns, sql: newStatements("public", time.Minute), jobs: map[string]*leasedJob{}, workers: map[int32]*leaseHolder{}}
		for _, table := range []string{"jobs", "job_errors", "job_workers"} {
			m.exec(t, `DELETE FROM `+table)
		}
		m.register(t)
		m.insert(t)
		m.insert(t)
		m.register(t)
		for range rapid.IntRange(10, 40).Draw(t, "steps") {
			m.step(t)
			m.compare(t)
		}
	})
}

func (m *leaseMachine) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"insert", "register", "claim", "claim again", "and again", "complete", "settle", "hold on", "complete_job", "fail_job",
		"release", "mark dead", "reap worker", "reap held", "beat", "unregister", "cancel_job"}).Draw(t, "statement") {
	case "insert":
		m.insert(t)
	case "register":
		m.register(t)
	case "claim", "claim again", "and again":
		m.claim(t)
	case "complete":
		m.complete(t)
	case "settle":
		m.settle(t, rapid.SampledFrom([]what{whatRetry, whatFail, whatSnooze, whatUnavailable, whatBack}).Draw(t, "what"))
	case "hold on":
		m.settle(t, whatHold)
	case "complete_job":
		m.completeJob(t)
	case "fail_job":
		m.failJob(t)
	case "release":
		m.release(t)
	case "mark dead":
		m.markDead(t)
	case "reap worker":
		m.reapWorker(t)
	case "reap held":
		m.reapHeld(t)
	case "beat":
		m.beat(t)
	case "unregister":
		m.unregister(t)
	case "cancel_job":
		m.cancelJob(t)
	}
}

func (m *leaseMachine) conn(t *rapid.T) *pgx.Conn {
	return m.conns[rapid.IntRange(0, len(m.conns)-1).Draw(t, "connection")]
}

func (m *leaseMachine) exec(t *rapid.T, statement string, arguments ...any) int64 {
	tag, err := m.conn(t).Exec(context.Background(), statement, arguments...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return tag.RowsAffected()
}

func (m *leaseMachine) insert(t *rapid.T) {
	live := 0
	for _, j := range m.jobs {
		if j.Status == "pending" || j.Status == "processing" {
			live++
		}
	}
	if live >= 2 {
		return // few, so that they are claimed again and again
	}
	var id string
	if err := m.conn(t).QueryRow(context.Background(), `INSERT INTO jobs (type, max_attempts) VALUES ('work', 3) RETURNING id::text`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	m.jobs[id] = &leasedJob{Status: "pending"}
	m.order = append(m.order, id)
}

func (m *leaseMachine) register(t *rapid.T) {
	var number, others int32
	if err := m.conn(t).QueryRow(context.Background(), m.sql.register, "one", "v", SchemaVersion, 1, []string{"work"}, 15.0, 1.5).Scan(&number, &others); err != nil {
		t.Fatal(err)
	}
	m.workers[number] = &leaseHolder{}
	m.numbers = append(m.numbers, number)
}

func (m *leaseMachine) worker(t *rapid.T) (int32, *leaseHolder) {
	number := rapid.SampledFrom(m.numbers).Draw(t, "worker")
	return number, m.workers[number]
}

// aClaim is one of the latest; nil before the first.
func (m *leaseMachine) aClaim(t *rapid.T) (made claimRecord, job *leasedJob) {
	if len(m.claims) == 0 {
		return claimRecord{}, nil
	}
	made = rapid.SampledFrom(m.claims[max(0, len(m.claims)-4):]).Draw(t, "lease")
	return made, m.jobs[made.job]
}

// holds is the fence.
func (j *leasedJob) holds(lease string) bool { return j.Status == "processing" && j.Lease == lease }

func (j *leasedJob) end(status string) { j.Status, j.Lease, j.Worker = status, "", 0 }

// again ends an attempt that did not complete the job.
func (j *leasedJob) again(status string) {
	if j.Cancelled {
		status = "cancelled"
	}
	j.end(status)
}

func (m *leaseMachine) claim(t *rapid.T) {
	number, holder := m.worker(t)
	most := rapid.IntRange(1, 3).Draw(t, "most")
	rows, err := m.conn(t).Query(context.Background(), m.sql.claim,
		number, rapid.Bool().Draw(t, "renew"), 1000, most, []string{"work"}, []int32{0},
		[]pgtype.Timestamptz{{InfinityModifier: pgtype.NegativeInfinity, Valid: true}}, []pgtype.UUID{{Valid: true}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (made claimRecord, err error) {
		var id, lease pgtype.UUID
		err = row.Scan(&id, nil, nil, nil, nil, nil, nil, nil, nil, &lease, nil, nil, nil, nil)
		made.job, made.lease = texts(id, lease)
		return made, err
	})
	if err != nil {
		t.Fatalf("claim: %v", err)
	}
	pending := 0
	for _, j := range m.jobs {
		if j.Status == "pending" {
			pending++
		}
	}
	want := min(most, pending)
	if holder.gone || holder.dead {
		want = 0
	}
	if len(found) != want {
		t.Fatalf("worker %d (%+v) claimed %d jobs of %d, want %d", number, *holder, len(found), pending, want)
	}
	for _, made := range found {
		j := m.jobs[made.job]
		if j.Status != "pending" || slices.ContainsFunc(m.claims, func(old claimRecord) bool { return old.lease == made.lease }) {
			t.Fatalf("claimed %+v, a job that was %+v", made, *j)
		}
		j.Status, j.Lease, j.Worker = "processing", made.lease, number
		j.Attempts++
		m.claims = append(m.claims, made)
	}
}

func (m *leaseMachine) complete(t *rapid.T) {
	made, j := m.aClaim(t)
	if j == nil {
		return
	}
	m.expect(t, "complete", m.exec(t, m.sql.complete, []string{made.job}, []string{made.lease}, nil), j.holds(made.lease))
	if j.holds(made.lease) {
		j.end("completed")
	}
}

func (m *leaseMachine) settle(t *rapid.T, said what) {
	made, j := m.aClaim(t)
	if j == nil {
		return
	}
	ending := fmt.Sprintf(`{"%s": {"what": "%s", "error": "x", "delay": 0}}`, made.lease, said)
	m.expect(t, string(said), m.exec(t, m.sql.settle, []string{made.job}, []string{made.lease}, ending, true, true), j.holds(made.lease))
	if !j.holds(made.lease) {
		return
	}
	switch said {
	case whatHold:
		j.Worker = 0
	case whatRetry:
		if j.Attempts >= 3 {
			j.again("failed")
		} else {
			j.again("pending")
		}
	case whatFail:
		j.again("failed")
	default:
		// The wish to cancel doesn't use up an attempt, either.
		if !j.Cancelled {
			j.Attempts--
		}
		j.again("pending")
	}
}

func (m *leaseMachine) expect(t *rapid.T, statement string, changed int64, holds bool) {
	if (changed == 1) != holds {
		t.Fatalf("%s changed %d jobs; it holds the lease: %t", statement, changed, holds)
	}
}

// refused reports whether a function of the contract found the lease to be stale.
func (m *leaseMachine) refused(t *rapid.T, statement string, arguments ...any) bool {
	_, err := m.conn(t).Exec(context.Background(), statement, arguments...)
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == "55000" {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return false
}

func (m *leaseMachine) completeJob(t *rapid.T) {
	made, j := m.aClaim(t)
	if j == nil {
		return
	}
	if refused := m.refused(t, `SELECT complete_job($1, $2)`, made.job, made.lease); refused == j.holds(made.lease) {
		t.Fatalf("complete_job with %s was refused: %t; the job is %+v", made.lease, refused, *j)
	}
	if j.holds(made.lease) {
		j.end("completed")
	}
}

func (m *leaseMachine) failJob(t *rapid.T) {
	made, j := m.aClaim(t)
	if j == nil {
		return
	}
	if refused := m.refused(t, `SELECT fail_job($1, $2, 'x', '0')`, made.job, made.lease); refused == j.holds(made.lease) {
		t.Fatalf("fail_job with %s was refused: %t; the job is %+v", made.lease, refused, *j)
	}
	switch {
	case !j.holds(made.lease):
	case j.Attempts >= 3:
		j.end("failed")
	default:
		j.again("pending")
	}
}

func (m *leaseMachine) release(t *rapid.T) {
	made, j := m.aClaim(t)
	if j == nil {
		return
	}
	m.expect(t, "release", m.exec(t, m.sql.release, []string{made.job}, []string{made.lease}), j.holds(made.lease))
	if j.holds(made.lease) {
		j.Attempts--
		j.again("pending")
	}
}

// markDead judges by the heartbeat as it is now, or as it was before another.
func (m *leaseMachine) markDead(t *rapid.T) {
	number, holder := m.worker(t)
	if holder.gone {
		return
	}
	var seen pgtype.Timestamptz
	if err := m.conn(t).QueryRow(context.Background(), `SELECT heartbeat_at FROM job_workers WHERE id = $1`, number).Scan(&seen); err != nil {
		t.Fatal(err)
	}
	beaten := rapid.Bool().Draw(t, "beaten meanwhile") && m.exec(t, m.sql.beat, number) == 1
	if marked := m.exec(t, m.sql.markDead, number, seen) == 1; marked != (!beaten && !holder.dead) {
		t.Fatalf("worker %d (%+v) was marked: %t; it had heartbeat: %t", number, *holder, marked, beaten)
	}
	holder.dead = holder.dead || !beaten
}

// reapWorker is called of workers that are dead.
func (m *leaseMachine) reapWorker(t *rapid.T) {
	number, holder := m.worker(t)
	if !holder.gone && !holder.dead {
		return
	}
	m.exec(t, m.sql.reapWorker, number)
	m.reaped(t, func(j *leasedJob) bool { return j.Worker == number })
}

func (m *leaseMachine) reapHeld(t *rapid.T) {
	m.exec(t, `UPDATE jobs SET held_until = now() - interval '1 s' WHERE status = 'processing' AND worker_id IS NULL`)
	m.exec(t, m.sql.reapHeld)
	m.reaped(t, func(j *leasedJob) bool { return j.Worker == 0 })
}

// reaped ends the attempts of jobs that were held so. What a death costs, and when the next attempt is due, is another
// matter: it is taken as it is, and made due.
func (m *leaseMachine) reaped(t *rapid.T, so func(*leasedJob) bool) {
	now := m.read(t)
	for id, j := range m.jobs {
		if j.Status != "processing" || !so(j) {
			continue
		}
		if now[id].Attempts != j.Attempts && now[id].Attempts != j.Attempts-1 {
			t.Fatalf("reaped %+v, and it is %+v", *j, now[id])
		}
		if j.Attempts = now[id].Attempts; j.Attempts >= 3 {
			j.again("failed")
		} else {
			j.again("pending")
		}
	}
	m.exec(t, `UPDATE jobs SET crashes = 0, scheduled_for = now() - interval '1 s' WHERE status = 'pending'`)
}

func (m *leaseMachine) beat(t *rapid.T) {
	number, holder := m.worker(t)
	if arrived := m.exec(t, m.sql.beat, number) == 1; arrived == (holder.gone || holder.dead) {
		t.Fatalf("the heartbeat of worker %d (%+v) arrived: %t", number, *holder, arrived)
	}
}

func (m *leaseMachine) unregister(t *rapid.T) {
	number, holder := m.worker(t)
	m.exec(t, m.sql.unregister, number)
	holds := false
	for _, j := range m.jobs {
		holds = holds || j.Status == "processing" && j.Worker == number
	}
	holder.gone = holder.gone || !holds
	holder.dead = true
}

func (m *leaseMachine) cancelJob(t *rapid.T) {
	id := rapid.SampledFrom(m.order).Draw(t, "job")
	m.exec(t, `SELECT cancel_job($1)`, id)
	switch j := m.jobs[id]; j.Status {
	case "pending":
		j.Cancelled = true
		j.end("cancelled")
	case "processing":
		j.Cancelled = true
	}
}

func (m *leaseMachine) read(t *rapid.T) map[string]leasedJob {
	rows, err := m.conn(t).Query(context.Background(), `SELECT id::text, status::text, attempts, coalesce(lease::text, ''), coalesce(worker_id, 0),
		cancel_requested_at IS NOT NULL FROM jobs`)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]leasedJob{}
	var id string
	var j leasedJob
	if _, err := pgx.ForEachRow(rows, []any{&id, &j.Status, &j.Attempts, &j.Lease, &j.Worker, &j.Cancelled}, func() error {
		found[id] = j
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func (m *leaseMachine) compare(t *rapid.T) {
	for id, there := range m.read(t) {
		if want := *m.jobs[id]; there != want {
			t.Fatalf("job %s is %+v, want %+v", id, there, want)
		}
	}
}
