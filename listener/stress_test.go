package listener_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

const (
	stressProducers = 100
	// stressBound is how late a job may start after its commit, on a machine that has more to do than it can.
	stressBound = 5 * time.Second
	// maxLoud is how many of the transactions in floods may ring, with sidecars that come and go and one that samples them
	// ten times a second.
	maxLoud = 0.35
)

// Producers of all kinds, whose statements are cancelled and whose connections are ended; sidecars that sleep and wake, lose
// their connections and are killed; no fallback poll. Every row that is committed is claimed, and soon.
// STRESS is for how long (20s), SEED repeats the draws, though not the timing.
func TestStress(t *testing.T) {
	s := newStress(t)
	// One of them has only jobs that most are not.
	s.startSidecar(stressSidecar{Name: "one", Types: []string{"a"}})
	s.startSidecar(stressSidecar{Name: "two", Types: []string{"a", "b"}, QuietMax: 100 * time.Millisecond})
	s.startSidecar(stressSidecar{Name: "three", Types: []string{"b"}})
	s.startMortal(stressSidecar{Name: "child", Types: []string{"a"}})
	s.produce()
	s.settled()
	s.compare()
	s.say()
	s.stopSidecars()
	s.leftovers()
}

// A single sidecar that falls asleep as soon and as often as it can, while transactions are under way. They come in rounds,
// after each of which nothing rings any more: a wake-up that is lost isn't made good by the next ring.
func TestStressFallingAsleep(t *testing.T) {
	s := newStress(t)
	s.startSidecar(stressSidecar{
		Name: "one", Types: []string{"a", "b"}, AwakeAbove: 30, Quiet: time.Millisecond, QuietMax: 2 * time.Millisecond,
	})
	var producers []*producer
	for range 20 {
		producers = append(producers, &producer{url: s.url, random: s.random(), ledger: &s.ledger, conn: connect(t, s.url), lingers: 20})
	}
	rounds := 0
	for began := time.Now(); time.Since(began) < s.length; rounds++ {
		var all sync.WaitGroup
		for _, p := range producers {
			all.Go(func() {
				for range 1 + p.random.IntN(2) {
					p.pause(t.Context(), 10)
					p.transact(t.Context())
				}
			})
		}
		all.Wait()
		if !s.allClaimed() {
			break
		}
	}
	t.Logf("%d rounds", rounds)
	s.settled()
	s.compare()
	s.say()
	s.stopSidecars()
	s.leftovers()
}

// stress is one run of the stress test.
type stress struct {
	*testing.T
	url    string
	conn   *pgx.Conn
	seed   uint64
	length time.Duration
	draws  uint64
	ledger ledger
	tempo  tempo
	pids   [stressProducers]atomic.Uint32
	stops  []func()
	bells  []*running
}

func newStress(t *testing.T) *stress {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("STRESS"), "20s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("SEED"), strconv.FormatInt(time.Now().UnixNano(), 10)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SEED=%d", seed)
	server, err := postgres.Start(t.Context(), postgres.Options{Settings: map[string]string{
		"max_connections": "300", "max_prepared_transactions": "100",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := &stress{T: t, url: server.URL("postgres"), seed: seed, length: length}
	s.conn = connect(t, s.url)
	if err := migrations.Up(t.Context(), s.conn, migrations.Config{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// random returns a source of draws for one goroutine.
func (s *stress) random() *rand.Rand {
	s.draws++
	return rand.New(rand.NewPCG(s.seed, s.draws))
}

func (s *stress) startSidecar(sidecar stressSidecar) {
	sidecar.URL = s.url
	bell, stop := startStressSidecar(s.T, sidecar)
	s.bells, s.stops = append(s.bells, bell), append(s.stops, stop)
}

// startMortal starts one in a child that is killed again and again.
func (s *stress) startMortal(sidecar stressSidecar) {
	sidecar.URL = s.url
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	random := s.random()
	go func() {
		ended <- sidecar.keepKilling(ctx, func() time.Duration { return time.Second + time.Duration(random.Int64N(int64(3*time.Second))) })
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Errorf("child: %v", err)
		}
	})
	s.stops = append(s.stops, stop)
	s.Cleanup(stop)
}

func (s *stress) stopSidecars() {
	for _, stop := range s.stops {
		stop()
	}
}

// produce runs the producers and what befalls them and the sidecars.
func (s *stress) produce() {
	ctx, cancel := context.WithTimeout(s.Context(), s.length)
	defer cancel()
	var all sync.WaitGroup
	for i := range stressProducers {
		p := &producer{url: s.url, random: s.random(), ledger: &s.ledger, tempo: &s.tempo, pid: &s.pids[i], lingers: 200}
		all.Go(func() {
			if err := p.run(ctx); err != nil {
				s.Errorf("producer: %v", err)
			}
		})
	}
	injector, cutter := connect(s.T, s.url), connect(s.T, s.url)
	long := &producer{url: s.url, random: s.random(), ledger: &s.ledger, conn: connect(s.T, s.url)}
	conducting, injecting, cutting := s.random(), s.random(), s.random()
	all.Go(func() { s.conduct(ctx, conducting) })
	all.Go(func() { s.inject(ctx, injecting, injector) })
	all.Go(func() { s.cut(ctx, cutting, cutter) })
	all.Go(func() { s.longTransaction(ctx, long, s.length/2) })
	all.Wait()
}

// every calls do after random pauses of up to most, until ctx is done.
func every(ctx context.Context, random *rand.Rand, most time.Duration, do func()) {
	for {
		timer := time.NewTimer(time.Duration(random.Int64N(int64(most))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			do()
		}
	}
}

// conduct has all producers press for a while, and then see to it that what they committed is claimed although nothing
// rings any more: a lost wake-up isn't made good by the next ring.
func (s *stress) conduct(ctx context.Context, random *rand.Rand) {
	tempos := []int64{1, 1, 20, 100, 1000}
	rounds, rings, transactions := 0, 0.0, 0
	for ctx.Err() == nil {
		tempo := tempos[random.IntN(len(tempos))]
		s.tempo.Store(tempo)
		<-time.After(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
		if tempo == 1 && random.IntN(4) == 0 { // a flood: by now all should be silent
			before, begun := s.rings(), s.ledger.count()
			<-time.After(time.Second)
			rings, transactions = rings+s.rings()-before, transactions+s.ledger.count()-begun
		}
		s.tempo.Store(0)
		for s.tempo.active.Load() > 0 {
			<-time.After(2 * time.Millisecond)
		}
		if !s.allClaimed() {
			break
		}
		rounds++
	}
	share := rings / float64(max(transactions, 1))
	s.Logf("%d rounds; of %d transactions in floods %.3f rang", rounds, transactions, share)
	if share > maxLoud {
		s.Errorf("%.3f of the transactions in floods rang", share)
	}
}

// allClaimed waits until all jobs are claimed that were committed, but for those that only the fallback poll owes.
func (s *stress) allClaimed() bool {
	began := time.Now()
	for {
		left := s.left(true)
		if len(left) == 0 {
			return true
		}
		if time.Since(began) > stressBound {
			s.Errorf("not claimed %s after the last commit: jobs of %v", stressBound, left)
			return false
		}
		<-time.After(5 * time.Millisecond)
	}
}

// inject cancels statements and ends connections of producers.
func (s *stress) inject(ctx context.Context, random *rand.Rand, conn *pgx.Conn) {
	every(ctx, random, 10*time.Millisecond, func() {
		sql := `SELECT pg_cancel_backend($1)`
		if random.IntN(20) == 0 {
			sql = `SELECT pg_terminate_backend($1)`
		}
		if pid := s.pids[random.IntN(stressProducers)].Load(); pid != 0 {
			if _, err := conn.Exec(context.WithoutCancel(ctx), sql, pid); err != nil {
				s.Errorf("inject: %v", err)
			}
		}
	})
}

// cut ends connections of sidecars, those of the work too.
func (s *stress) cut(ctx context.Context, random *rand.Rand, conn *pgx.Conn) {
	names := []string{"one bell", "one listener", "two bell", "two listener", "three bell", "three listener", "child bell", "child listener"}
	every(ctx, random, time.Second, func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), terminate, names[random.IntN(len(names))]); err != nil {
			s.Errorf("cut: %v", err)
		}
	})
}

// longTransaction inserts, and stays open.
func (s *stress) longTransaction(ctx context.Context, p *producer, length time.Duration) {
	background := context.WithoutCancel(ctx)
	number := p.ledger.begin("long")
	err := p.exec(background, "BEGIN")
	if err == nil {
		err = p.exec(background, insertMany, ids(number, 0, 3), "b")
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	<-timer.C
	if err == nil {
		err = p.exec(background, "COMMIT")
	}
	if err != nil {
		s.Errorf("long transaction: %v", err)
		return
	}
	p.ledger.end(number, committed, 3, true)
}

// left returns the kinds of transaction of the jobs that wait; owed: without those that nothing rang for.
func (s *stress) left(owed bool) (kinds []string) {
	waiting := texts(s.T, s.conn, `SELECT id::text FROM jobs WHERE status IN ('pending', 'processing')`)
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for _, id := range waiting {
		number, err := strconv.ParseUint(id[:8]+id[9:13]+id[14:18], 16, 64)
		if err != nil {
			s.Fatal(err)
		}
		if n := s.ledger.notes[number]; n.owed || !owed {
			kinds = append(kinds, n.kind)
		}
	}
	return kinds
}

// settled waits until all jobs are done, those that nothing rang for after one ring, which stands for the fallback poll.
func (s *stress) settled() {
	for _, transaction := range texts(s.T, s.conn, `SELECT gid FROM pg_prepared_xacts`) { // lost at the PREPARE
		run(s.T, s.conn, `ROLLBACK PREPARED '`+transaction+`'`)
	}
	if s.allClaimed() {
		s.Logf("all are done but for %d that nothing rang for", len(s.left(false)))
	}
	run(s.T, s.conn, `SELECT ring_jobs()`)
	await(s.T, "all others are done", func() bool { return len(s.left(false)) == 0 })
}

func texts(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, _ := conn.Query(t.Context(), sql) // the error is in the rows
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// compare holds the table against the ledger: what was committed is there, done, and was claimed in time.
func (s *stress) compare() {
	type row struct {
		ID       [16]byte
		Status   string
		Started  *time.Time
		Attempts int
		Crashes  int
	}
	rows, _ := s.conn.Query(s.Context(), `SELECT id, status, started_at, attempts, crashes FROM jobs`)
	jobs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		s.Fatal(err)
	}
	found := make([]int, len(s.ledger.notes))
	var late []time.Duration
	worst := map[string]time.Duration{}
	for _, job := range jobs {
		number := binary.BigEndian.Uint64(job.ID[:8])
		n := s.ledger.notes[number]
		found[number]++
		if n.outcome != committed {
			continue
		}
		if job.Status != "completed" || job.Started == nil {
			s.Errorf("job of transaction %d (%s): %s", number, n.kind, job.Status)
			continue
		}
		if !n.owed || job.Attempts > 1 || job.Crashes > 0 {
			continue // when it was claimed first is not known any more
		}
		after := job.Started.Sub(n.at)
		late = append(late, after)
		worst[n.kind] = max(worst[n.kind], after)
		if after > stressBound {
			s.Errorf("job of transaction %d (%s): claimed %s after its commit", number, n.kind, after)
		}
	}
	transactions := 0
	for number, n := range s.ledger.notes {
		if n.outcome == committed {
			transactions++
		}
		if n.outcome == committed && found[number] != n.rows || n.outcome == aborted && found[number] != 0 {
			s.Errorf("transaction %d (%s): %d rows, want %d", number, n.kind, found[number], n.rows)
		}
	}
	slices.Sort(late)
	if len(late) == 0 {
		s.Fatal("no jobs")
	}
	at := func(share float64) time.Duration {
		return max(late[int(share*float64(len(late)-1))], 0).Round(10 * time.Microsecond)
	}
	s.Logf("%d jobs of %d transactions, of %d; claimed after their commit: p50 %s, p99 %s, p99.9 %s, max %s", len(jobs), transactions,
		len(s.ledger.notes), at(.5), at(.99), at(.999), at(1))
	s.Logf("latest by kind: %v", worst)
}

// rings is how many were heard, by the one that heard the most.
func (s *stress) rings() (most float64) {
	for _, bell := range s.bells {
		most = max(most, value(s.T, bell, "pgbell_listener_rings_total"))
	}
	return most
}

// say logs what the bells counted.
func (s *stress) say() {
	for _, name := range []string{"rings_total", "sleeps_total", "rushes_total", "deaf_periods_total", "unannounced_wait_seconds"} {
		var each []float64
		for _, bell := range s.bells {
			each = append(each, value(s.T, bell, "pgbell_listener_"+name))
		}
		s.Logf("%s: %v", name, each)
	}
}

// leftovers sees that no lock is left, producers' sessions having ended by themselves or by force.
func (s *stress) leftovers() {
	await(s.T, "no lock is left", func() bool { return query[int](s.T, s.conn, countAdvisory) == 0 })
}
