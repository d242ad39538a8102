package dispatch_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

func TestRestartOfPostgresUnderLoad(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := fixture{T: t, url: server.URL("postgres")}
	conn := f.dial()
	if err := migrations.Up(t.Context(), conn, migrations.Config{}); err != nil {
		t.Fatal(err)
	}
	f.pool = pgtest.Pool(t, f.url)
	f.countCompletions()
	one := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 20}})
	two := f.goSidecar(spec{Name: "two", Types: map[string]int{"work": 20}})
	one.await(ready, "")
	two.await(ready, "")
	stopInserting := f.insertSteadily("work")
	for _, mode := range []struct {
		name   string
		signal syscall.Signal
	}{{"fast", postgres.Fast}, {"immediate", postgres.Immediate}} {
		noted := one.lines() + two.lines()
		f.eventually("there is load", func() bool { return one.lines()+two.lines() > noted+400 })
		if err := server.Halt(mode.signal); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second) // long enough for backoffs to grow
		if err := server.Launch(t.Context()); err != nil {
			t.Fatal(err)
		}
		up := sharedNow()
		f.pool.Reset()
		var first time.Duration
		f.eventually("a job starts", func() bool {
			for _, r := range slices.Concat(one.records(), two.records()) {
				if r.What == start && r.At > up && (first == 0 || r.At < first) {
					first = r.At
				}
			}
			return first != 0
		})
		t.Logf("%s restart: from accepting connections to the next start of a job: %s", mode.name, (first - up).Round(time.Millisecond))
		if first-up > 6*time.Second {
			t.Errorf("%s restart: no claim for %s", mode.name, first-up)
		}
	}
	ids := stopInserting()
	f.checkCompletedOnce(ids)
	if n := f.count(`SELECT count(*) FROM jobs WHERE attempts <> 1 OR crashes <> 0`); n != 0 {
		t.Errorf("%d jobs lost an attempt to a restart within the lease", n)
	}
	for id, all := range runs(t, nil, one, two) {
		if len(all) != 1 {
			t.Errorf("job %s ran %d times: %+v", id, len(all), all)
		}
	}
}

// Claims and settles lose their answers here, at any point.
func TestAllBackendsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.countCompletions()
	one := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 20}})
	two := f.goSidecar(spec{Name: "two", Types: map[string]int{"work": 20}})
	one.await(ready, "")
	two.await(ready, "")
	f.exec(`INSERT INTO jobs (type, payload) SELECT 'work', jsonb_build_object('for', n % 30) FROM generate_series(1, 3000) n`)
	stopInserting := f.insertSteadily("work")
	killer := f.dial()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	killed := 0
	for range 25 {
		<-tick.C
		var n int
		if err := killer.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		killed += n
	}
	calm := time.Now()
	f.pool.Reset()
	ids := f.allJobs(stopInserting())
	f.checkCompletedOnce(ids)
	all := runs(t, nil, one, two)
	again := 0
	for _, of := range all {
		again += len(of) - 1
	}
	t.Logf("%d jobs, %d backends killed; all completed %s after the last; %d runs again, %d crashes, %d answers of claims lost", len(ids), killed,
		time.Since(calm).Round(time.Millisecond), again, f.count(`SELECT coalesce(sum(crashes), 0) FROM jobs`),
		strings.Count(one.log.String()+two.log.String(), lostAnswer))
	if killed < 25 {
		t.Errorf("only %d backends killed", killed)
	}
}

// The claim is committed, and its answer never comes: nobody but the database knows who holds the job.
func TestLostAnswerOfAClaim(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const marker = "the answer that never comes"
	var lost atomic.Bool
	s := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 5}, lose: func(answer []byte) bool {
		return bytes.Contains(answer, []byte(marker)) && !lost.Swap(true)
	}})
	s.await(ready, "")
	began := time.Now()
	id := f.insert(`INSERT INTO jobs (type, payload) VALUES ('work', jsonb_build_object('note', $1::text)) RETURNING id`, marker)
	got := f.until(id, "completed")
	t.Logf("completed %s after the insert", time.Since(began).Round(time.Millisecond))
	if got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 {
		t.Errorf("job: %+v", got)
	}
	if len(runs(t, nil, s)[id]) != 1 {
		t.Error("the job should have run once")
	}
	if !strings.Contains(s.log.String(), lostAnswer) {
		t.Error("no answer was lost")
	}
}

const lostAnswer = "giving back jobs of a claim whose answer was lost"

// One answer in forty never comes: of claims, settles, heartbeats, whatever it is.
func TestAnswersLostAtRandom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.countCompletions()
	var all []*sidecar
	for _, name := range []string{"one", "two"} {
		s := f.goSidecar(spec{Name: name, Types: map[string]int{"work": 20}, lose: func([]byte) bool { return mathrand.IntN(40) == 0 }})
		s.await(ready, "")
		all = append(all, s)
	}
	stopInserting := f.insertSteadily("work")
	f.eventually("much was done", func() bool { return f.count(`SELECT count(*) FROM completions`) > 1000 })
	ids := stopInserting()
	f.checkCompletedOnce(ids)
	lost := strings.Count(all[0].log.String()+all[1].log.String(), lostAnswer)
	t.Logf("%d jobs; %d times were jobs found of a claim whose answer was lost", len(ids), lost)
	if lost == 0 {
		t.Error("no claim lost its answer")
	}
	if n := f.count(`SELECT count(*) FROM jobs WHERE attempts <> 1 OR crashes <> 0`); n != 0 {
		t.Errorf("%d jobs lost an attempt", n)
	}
	for id, of := range runs(t, nil, all...) {
		if len(of) != 1 {
			t.Errorf("job %s ran %d times: %+v", id, len(of), of)
		}
	}
}

// The claim is committed after its holder gave it up and looked in vain for what it might have led to; and short jobs, each of
// which comes to an idle worker, follow one another without end.
func TestLateClaimIsFoundUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.dawdle()
	s := f.goSidecar(spec{Name: "one", LeaseTime: 6 * time.Second, Types: map[string]int{"late": 1, "work": 1}})
	s.await(ready, "")
	// The heartbeat does not wait for a claim that comes to a worker which holds a job.
	holding := f.enqueue("work", order{For: 3000}, 3)
	s.await(start, holding)
	late := f.enqueue("late", order{}, 3)
	f.eventually("the claim that is late is committed", func() bool { return f.job(late).Status == "processing" })
	f.until(holding, "completed")
	f.eventually("it is given back, and runs", func() bool {
		f.until(f.enqueue("work", order{}, 3), "completed")
		return f.job(late).Status == "completed"
	})
	if got := f.job(late); got.Attempts != 1 || got.Crashes != 0 {
		t.Errorf("job: %+v", got)
	}
	if len(runs(t, nil, s)[late]) != 1 {
		t.Error("the job should have run once")
	}
}

// The claim is committed after its holder gave it up and left.
func TestLateClaimOfAWorkerThatIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.dawdle()
	leaving := f.goSidecar(spec{Name: "leaving", LeaseTime: 2 * time.Second, Types: map[string]int{"late": 1}})
	leaving.await(ready, "")
	late := f.enqueue("late", order{}, 3)
	f.eventually("the claim is under way", func() bool {
		return f.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`) == 1
	})
	if err := leaving.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	other := f.goSidecar(spec{Name: "other", Types: map[string]int{"late": 1}})
	other.await(ready, "")
	if got := f.until(late, "completed"); got.Attempts > 2 {
		t.Errorf("job: %+v", got)
	}
	if all := runs(t, nil, leaving, other)[late]; len(all) != 1 {
		t.Errorf("the job should have run once: %+v", all)
	}
}

// A claim that began before its worker was declared dead, and learned it by a heartbeat, is answered after that: what it claimed is
// another's soon.
func TestClaimOfAWorkerDeclaredDeadMeanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$`)
	f.exec(`CREATE TRIGGER dawdle BEFORE UPDATE ON jobs FOR EACH ROW
		WHEN (NEW.type = 'late' AND NEW.status = 'processing' AND OLD.status = 'pending') EXECUTE FUNCTION dawdle()`)
	s := f.goSidecar(spec{Name: "one", LeaseTime: 30 * time.Second, NoPresence: true, Types: map[string]int{"late": 1, "work": 1}})
	s.await(ready, "")
	holding := f.enqueue("work", order{BlockIn: "one"}, 3)
	s.await(start, holding)
	late := f.enqueue("late", order{For: 15_000}, 3)
	f.eventually("the claim is under way", func() bool {
		return f.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`) == 1
	})
	f.exec(`UPDATE job_workers SET dead_at = now() WHERE id = $1`, s.worker())
	f.exec(`SELECT pg_notify('pgbell_public', 'cancel')`) // whoever hears that heartbeats at once
	s.await(end, holding)
	if f.job(late).Status != "pending" {
		t.Fatal("the claim was committed before the heartbeat")
	}
	for _, id := range []string{holding, late} {
		if got := s.await(end, id); got.Cause != dispatch.ErrLeaseLost.Error() {
			t.Errorf("the context's cause was %q", got.Cause)
		}
	}
	began, ended := s.await(start, late), s.await(end, late)
	if ran := ended.At - began.At; ran > time.Second {
		t.Errorf("it went on for %s", ran)
	}
}

func TestJobsOfAWorkerWithoutARowAreReaped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 1}})
	s.await(ready, "")
	id := f.insert(`INSERT INTO jobs (type, status, attempts, lease, worker_id) VALUES ('work', 'processing', 1, gen_random_uuid(), 4711) RETURNING id`)
	f.eventuallyWithin(20*time.Second, "it is reaped", func() bool {
		f.exec(`SELECT ring_jobs()`) // who is still awake hears none, and nobody would look for a minute
		return f.job(id).Status != "processing"
	})
	if got := f.until(id, "completed"); got.Attempts != 2 || got.Crashes != 1 {
		t.Errorf("job: %+v", got)
	}
}

// dawdle has the first claim of each job of type late take so long that it is given up, and commits it half a second after. It neither
// heeds the server's limit, which comes before that, nor the cancel of the client, as one that gets lost.
func (f fixture) dawdle() {
	f.Helper()
	f.exec(`CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN
				PERFORM pg_sleep(5);
			EXCEPTION WHEN query_canceled THEN
				BEGIN
					PERFORM pg_sleep(5);
				EXCEPTION WHEN query_canceled THEN
					PERFORM pg_sleep(0.5);
				END;
			END;
			RETURN NEW;
		END $$`)
	f.exec(`CREATE TRIGGER dawdle BEFORE UPDATE ON jobs FOR EACH ROW
		WHEN (NEW.type = 'late' AND NEW.status = 'processing' AND OLD.status = 'pending' AND OLD.updated_at = OLD.created_at)
		EXECUTE FUNCTION dawdle()`)
}

func TestWorkerThatCannotShowItsPresenceIsNotReaped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var cut atomic.Bool
	one := f.goSidecar(spec{Name: "one", Types: map[string]int{"one": 1}, LeaseTime: 15 * time.Second, cutBell: &cut})
	two := f.goSidecar(spec{Name: "two", Types: map[string]int{"two": 1}})
	one.await(ready, "")
	two.await(ready, "")
	f.awaitServerAge(15 * time.Second)
	worker := one.worker()
	id := f.enqueue("one", order{For: 6000}, 3)
	one.await(start, id)
	f.eventually("it is present", func() bool { return f.count(countPresence, worker) == 1 })
	cut.Store(true)
	if n := f.count(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name IN ('one bell', 'one listener')`); n != 2 {
		t.Errorf("%d connections were cut", n)
	}
	f.eventually("it is not present", func() bool { return f.count(countPresence, worker) == 0 })
	if got := f.until(id, "completed"); got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 {
		t.Errorf("job: %+v", got)
	}
	if f.count(countPresence, worker) != 0 {
		t.Error("the lock was there again before the job's end")
	}
	if now := one.worker(); now != worker {
		t.Errorf("worker %d became %d", worker, now)
	}
	// What it waits for by then is the poll of a deaf one.
	if got := f.until(f.enqueue("one", order{}, 3), "completed"); got.Attempts != 1 {
		t.Errorf("job while deaf: %+v", got)
	}
}

// As the reaper reads it.
const countPresence = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND classid = 'jobs'::regclass AND objid = $1::int4::oid`

func TestRowLockedByAStranger(t *testing.T) {
	t.Parallel()
	for _, way := range []struct{ end, lock string }{
		{"ROLLBACK", `FOR UPDATE`},
		{"COMMIT", `FOR UPDATE`},
		{"ROLLBACK", `FOR NO KEY UPDATE`},
	} {
		t.Run(way.end+" "+way.lock, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			s := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 5}})
			s.await(ready, "")
			id := f.insert(`INSERT INTO jobs (type, scheduled_for) VALUES ('work', now() + interval '500 ms') RETURNING id`)
			stranger := f.dial()
			f.execOn(stranger, `BEGIN`)
			f.execOn(stranger, `SELECT id FROM jobs WHERE id = $1 `+way.lock, id)
			f.eventually("the job has been due for a while", func() bool { return f.job(id).DueIn < -1 })
			if got := f.job(id); got.Status != "pending" {
				t.Fatalf("the locked job is %+v", got)
			}
			released := sharedNow()
			f.execOn(stranger, way.end)
			took := s.await(start, id).At - released
			t.Logf("started %s after the lock was gone", took.Round(time.Millisecond))
			if took > 3*time.Second {
				t.Errorf("started only %s after the lock was gone", took)
			}
		})
	}
}

// A foreign key to jobs locks the rows that it refers to, and must not hide them.
func TestForeignKeysDoNotHideJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.exec(`CREATE TABLE mails (job_id uuid REFERENCES jobs (id))`)
	s := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 5}})
	s.await(ready, "")
	id := f.insert(`INSERT INTO jobs (type, scheduled_for) VALUES ('work', now() + interval '500 ms') RETURNING id`)
	stranger := f.dial()
	f.execOn(stranger, `BEGIN`)
	f.execOn(stranger, `INSERT INTO mails VALUES ($1)`, id)
	f.until(id, "completed")
	f.execOn(stranger, `COMMIT`)
}

func TestReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 5}})
	s.await(ready, "")
	admin := f.dial()
	done, failed := f.enqueue("work", order{For: 1000}, 3), f.insert(
		`INSERT INTO jobs (type, payload, max_attempts) VALUES ('work', '{"for": "no number"}', 1) RETURNING id`)
	s.await(start, done)
	f.until(failed, "failed")
	f.readOnly(admin, true)
	s.await(end, done)
	<-time.After(2 * time.Second)
	if got := f.job(done); got.Status != "processing" {
		t.Errorf("in a read-only database the job became %+v", got)
	}
	waiting := f.enqueueOn(admin, "work")
	f.readOnly(admin, false)
	if got := f.until(done, "completed"); got.Attempts != 1 || got.Errors != 0 || string(got.Result) != `{"by": "one"}` {
		t.Errorf("job whose result could not be written at once: %+v", got)
	}
	f.until(waiting, "completed")
	for id, all := range runs(t, nil, s) {
		if len(all) != 1 {
			t.Errorf("job %s ran %d times: %+v", id, len(all), all)
		}
	}
}

// Out of touch for longer than its lease, a lone worker cancels what runs and drops what it could not write; back again, it
// runs all of it anew, and needs no other worker for that.
func TestReadOnlyForLongerThanTheLease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "one", LeaseTime: 2 * time.Second, Types: map[string]int{"work": 5}})
	s.await(ready, "")
	admin := f.dial()
	ended, running := f.enqueue("work", order{For: 500}, 3), f.enqueue("work", order{For: 2500}, 3)
	s.await(start, ended)
	s.await(start, running)
	f.readOnly(admin, true)
	cancelled := s.await(end, running)
	if cancelled.Cause != dispatch.ErrLeaseEnding.Error() {
		t.Errorf("the context's cause was %q", cancelled.Cause)
	}
	f.eventually("the outcomes are given up", func() bool {
		return strings.Count(s.log.String(), "could not be written before the lease ended") == 2
	})
	f.readOnly(admin, false)
	for _, id := range []string{ended, running} {
		if got := f.until(id, "completed"); got.Errors > 1 || got.Attempts > 2 {
			t.Errorf("job: %+v", got)
		}
	}
	for id, all := range runs(t, nil, s) {
		if len(all) != 2 {
			t.Errorf("job %s ran %d times: %+v", id, len(all), all)
		}
	}
}

// Statements that write fail, but all connections stand: nothing but the lease tells the worker that it is out of touch.
func TestOutcomeThatWasGivenUpIsFoundAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "one", LeaseTime: 2 * time.Second, Types: map[string]int{"work": 5}})
	s.await(ready, "")
	id := f.enqueue("work", order{For: 1000}, 3)
	s.await(start, id)
	for _, statement := range []string{
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE 'cannot execute UPDATE in a read-only transaction' USING ERRCODE = 'read_only_sql_transaction'; END $$`,
		`CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH STATEMENT EXECUTE FUNCTION refuse()`,
		`CREATE TRIGGER refuse BEFORE UPDATE ON job_workers FOR EACH STATEMENT EXECUTE FUNCTION refuse()`,
	} {
		f.exec(statement)
	}
	f.eventually("the outcome is given up", func() bool {
		return strings.Contains(s.log.String(), "could not be written before the lease ended")
	})
	f.exec(`DROP FUNCTION refuse CASCADE`)
	f.until(id, "completed")
	if all := runs(t, nil, s)[id]; len(all) != 2 {
		t.Errorf("the job should have run twice: %+v", all)
	}
}

func TestSettleThatFailsForAWhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.goSidecar(spec{Name: "one", LeaseTime: 3 * time.Second, Types: map[string]int{"work": 50}})
	s.await(ready, "")
	for _, statement := range []string{
		`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$`,
		`CREATE TRIGGER full_disk BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.status = 'completed') EXECUTE FUNCTION full_disk()`,
	} {
		f.exec(statement)
	}
	var ids []string
	for range 20 {
		ids = append(ids, f.enqueue("work", order{}, 3))
	}
	for _, id := range ids {
		s.await(end, id)
	}
	<-time.After(4 * time.Second) // longer than the lease, which heartbeats renew
	if n := f.count(`SELECT count(*) FROM jobs WHERE status = 'processing'`); n != len(ids) {
		t.Errorf("%d jobs wait for their settle, not %d", n, len(ids))
	}
	f.exec(`DROP TRIGGER full_disk ON jobs`)
	for _, id := range ids {
		if got := f.until(id, "completed"); got.Attempts != 1 || got.Errors != 0 {
			t.Errorf("job: %+v", got)
		}
	}
	for id, all := range runs(t, nil, s) {
		if len(all) != 1 {
			t.Errorf("job %s ran %d times: %+v", id, len(all), all)
		}
	}
}

// dial returns a connection of its own to the database.
func (f fixture) dial() *pgx.Conn {
	f.Helper()
	conn, err := pgx.Connect(f.Context(), f.url)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close(context.WithoutCancel(f.Context())) }) // the server may be gone
	return conn
}

func (f fixture) execOn(conn *pgx.Conn, sql string, arguments ...any) {
	f.Helper()
	if _, err := conn.Exec(f.Context(), sql, arguments...); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
}

// enqueueOn inserts a job over a connection that may write whatever the database's setting is.
func (f fixture) enqueueOn(conn *pgx.Conn, jobType string) string {
	f.Helper()
	var id string
	if err := conn.QueryRow(f.Context(), `INSERT INTO jobs (type) VALUES ($1) RETURNING id`, jobType).Scan(&id); err != nil {
		f.Fatal(err)
	}
	return id
}

// readOnly makes all transactions but those of admin read-only, or no longer so.
func (f fixture) readOnly(admin *pgx.Conn, yes bool) {
	f.Helper()
	database := pgx.Identifier{admin.Config().Database}.Sanitize()
	f.execOn(admin, fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_read_only = %t`, database, yes))
	f.execOn(admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	f.pool.Reset()
	f.eventually("it is so", func() bool {
		var now bool
		err := f.pool.QueryRow(f.Context(), `SELECT current_setting('default_transaction_read_only')::bool`).Scan(&now)
		return err == nil && now == yes
	})
}

// countCompletions has the database note each time that a job is set to completed.
func (f fixture) countCompletions() {
	f.Helper()
	for _, statement := range []string{
		`CREATE TABLE completions (job_id uuid NOT NULL)`,
		`CREATE FUNCTION note_completion() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO completions VALUES (NEW.id); RETURN NULL; END $$`,
		`CREATE TRIGGER note_completion AFTER UPDATE ON jobs FOR EACH ROW WHEN (NEW.status = 'completed') EXECUTE FUNCTION note_completion()`,
	} {
		f.exec(statement)
	}
}

// allJobs are those that were inserted before, and the given ones.
func (f fixture) allJobs(given []string) []string {
	f.Helper()
	rows, err := f.pool.Query(f.Context(), `SELECT id::text FROM jobs UNION SELECT w.id::text FROM unnest($1::uuid[]) w(id)`, given)
	if err != nil {
		f.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.Fatal(err)
	}
	return ids
}

// checkCompletedOnce waits for these jobs, and no others, to be completed, and looks whether each was so once.
func (f fixture) checkCompletedOnce(ids []string) {
	f.Helper()
	f.eventuallyWithin(30*time.Second, "all jobs are done with", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE status IN ('pending', 'processing')`) == 0
	})
	if n := f.count(`SELECT count(*) FROM unnest($1::uuid[]) w(id) JOIN jobs j USING (id) WHERE j.status = 'completed'`, ids); n != len(ids) {
		f.Errorf("%d of %d inserted jobs are completed", n, len(ids))
	}
	if n := f.count(`SELECT count(*) FROM jobs`); n != len(ids) {
		f.Errorf("there are %d jobs, not %d", n, len(ids))
	}
	if n := f.count(`SELECT count(*) FROM (SELECT FROM completions GROUP BY job_id HAVING count(*) > 1) twice`); n != 0 {
		f.Errorf("%d jobs were completed more than once", n)
	}
}

// insertSteadily inserts short jobs, whatever happens to the database, until the returned function is called. That returns
// the ids of all.
func (f fixture) insertSteadily(jobType string) (stop func() []string) {
	f.Helper()
	pool, err := pgxpool.New(context.Background(), pgtest.PoolURL(f.url))
	if err != nil {
		f.Fatal(err)
	}
	const batch = 5
	ctx, cancel := context.WithCancel(context.Background())
	inserted := make(chan []string, 1)
	insert := func(ids []string) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, err := pool.Exec(ctx, `INSERT INTO jobs (id, type, payload)
			SELECT id, $2, jsonb_build_object('for', n * 5) FROM unnest($1::uuid[]) WITH ORDINALITY w(id, n)
			ON CONFLICT (id) DO NOTHING`, ids, jobType)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "42")) {
			f.Errorf("insert: %v", err)
			return nil
		}
		return err
	}
	go func() {
		defer pool.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var all []string
		for ctx.Err() == nil {
			ids := make([]string, batch)
			for i := range ids {
				ids[i] = randomID()
			}
			for insert(ids) != nil {
				<-tick.C
			}
			all = append(all, ids...)
			<-tick.C
		}
		inserted <- all
	}()
	stop = sync.OnceValue(func() []string {
		cancel()
		return <-inserted
	})
	f.Cleanup(func() { stop() })
	return stop
}

func randomID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return fmt.Sprintf("%x", id)
}

// lines is how many records it has noted.
func (s *sidecar) lines() int {
	s.Helper()
	return bytes.Count(s.recorded(), []byte("\n"))
}

// losingDial makes connections that are lost with an answer that lose names. The server has done by then what was asked.
func losingDial(dial pgconn.DialFunc, lose func([]byte) bool) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &losingConn{Conn: conn, lose: lose}, nil
	}
}

type losingConn struct {
	net.Conn
	lose func([]byte) bool
}

func (c *losingConn) Read(into []byte) (int, error) {
	n, err := c.Conn.Read(into)
	if n > 0 && c.lose(into[:n]) {
		return 0, errors.Join(io.ErrUnexpectedEOF, c.Conn.Close())
	}
	return n, err
}

// A row that a stranger has locked keeps its own job from being settled, and no other.
func TestLockedRowHoldsUpNoOtherSettle(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	locked := make(chan struct{})
	f.start(dispatch.Config{Concurrency: 20, Types: map[string]dispatch.Type{
		"held": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result {
			<-locked
			return dispatch.Done(nil)
		})},
		"other": {Handler: gofunc.New(nothing)},
	}})
	id := f.insert(`INSERT INTO jobs (type) VALUES ('held') RETURNING id`)
	f.until(id, "processing")
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM jobs WHERE id = $1 FOR UPDATE`, id); err != nil {
		t.Fatal(err)
	}
	close(locked)
	f.exec(`INSERT INTO jobs (type) SELECT 'other' FROM generate_series(1, 1000)`)
	f.eventually("the others complete", func() bool {
		return f.count(`SELECT count(*) FROM jobs WHERE type = 'other' AND status = 'completed'`) == 1000
	})
	if status := f.job(id).Status; status != "processing" {
		t.Errorf("the locked job is %s", status)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.until(id, "completed")
}
