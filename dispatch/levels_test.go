package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func headOf(jobType string, priority int32, in time.Duration, due time.Time) head {
	return head{levelKey{jobType, priority}, place{due, pgtype.UUID{Valid: true}}, in}
}

func everything(string) bool { return true }

func keysOf(c levelClaim) (keys []string) {
	for _, one := range c.levels {
		keys = append(keys, fmt.Sprintf("%s/%d", one.jobType, one.priority))
	}
	return keys
}

func claimedJobs(jobType string, priority, n int, due time.Time) (claimed []*attempt) {
	for i := range n {
		claimed = append(claimed, &attempt{job: Job{Type: jobType, Priority: priority, ScheduledFor: due, id: pgtype.UUID{Bytes: [16]byte{byte(i + 1)}, Valid: true}}})
	}
	return claimed
}

func TestClaimsFollowTheWalk(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLevels(map[string]Type{"a": {}, "b": {}, DefaultType: {}})
	w := wants{types: []string{"a", "b"}, most: []int32{5, 5}, slots: 10, any: 10, others: []string{"a", "b"}, wildcard: true}
	if got := keysOf(l.claim(w)); len(got) != 2 {
		t.Errorf("before the first walk it claims %v, want the named types", got)
	}
	next := l.walkedOver([]head{
		headOf("a", 0, -time.Second, now), headOf("b", 7, -time.Minute, now), headOf("c", 0, -2*time.Second, now), headOf("d", 9, time.Hour, now),
	}, &tour{began: now}, everything, now)
	if next != -time.Minute {
		t.Errorf("the first is due in %s", next)
	}
	c := l.claim(w)
	if got := fmt.Sprint(keysOf(c)); got != "[d/9 b/7 c/0 a/0 b/0]" {
		t.Errorf("it claims %s", got)
	}
	if c.oneType() || len(c.types) != 4 {
		t.Errorf("it claims the types %v", c.types)
	}

	// Full: the same again, exactly from where it stopped. Not full: what had no more is done with.
	l.note(c, claimedJobs("b", 7, 5, now), true, now)
	c = l.claim(w)
	if !l.more(w) || c.levels[1].jobType != "b" || c.dues[1].Time != now || c.ids[1].Bytes[0] != 5 {
		t.Errorf("after a full claim it goes on with %v at %v %v", keysOf(c), c.dues[1], c.ids[1])
	}
	l.note(c, claimedJobs("b", 7, 1, now.Add(time.Minute)), false, now)
	if l.more(w) {
		t.Error("there is more after a claim that was not full")
	}
	c = l.claim(w)
	if l.rest[0].levelKey != (levelKey{"b", 7}) || c.levels[1] != l.rest[0] || c.dues[1].Time != now.Add(time.Minute-markLag) {
		t.Errorf("it claims %v, from %v on: want the one that had jobs last, with a lag", keysOf(c), c.dues[1].Time)
	}
	if got := l.nextHead(levelClaim{}, w, now); got != time.Hour {
		t.Errorf("the next job is due in %s, want that of d", got)
	}
	if got := l.nextHead(levelClaim{}, wants{types: []string{"a"}, most: []int32{5}, slots: 5}, now); got != farAhead {
		t.Errorf("the next job that there is room for is due in %s, want none", got)
	}

	// A job that turned up before the mark.
	l.walkedOver([]head{headOf("b", 7, -time.Hour, now.Add(-time.Hour))}, &tour{began: now}, everything, now)
	c = l.claim(w)
	if c.levels[1].levelKey != (levelKey{"b", 7}) || !c.dues[1].Time.Before(now.Add(-time.Hour)) {
		t.Errorf("it claims %v from %v on, after a walk that found an older job", keysOf(c), c.dues[1].Time)
	}
}

// A job that is due now is not behind the mark of a level whose first job is due later, also after the clock was set back.
func TestFutureJobsSetNoMark(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLevels(map[string]Type{"a": {}})
	w := wants{types: []string{"a"}, most: []int32{5}, slots: 5}
	later := []head{headOf("a", 0, time.Hour, now.Add(time.Hour))}
	l.walkedOver(later, &tour{began: now}, everything, now)
	if due := l.claim(w).dues[0]; due.InfinityModifier != pgtype.NegativeInfinity {
		t.Errorf("it claims from %v on", due)
	}
	l.note(l.claim(w), claimedJobs("a", 0, 1, now.Add(2*time.Hour)), false, now)
	l.walkedOver(later, &tour{began: now}, everything, now)
	if due := l.claim(w).dues[0]; due.InfinityModifier != pgtype.NegativeInfinity {
		t.Errorf("with the clock set back it claims from %v on", due)
	}
}

func TestClaimsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLevels(map[string]Type{DefaultType: {}})
	w := wants{slots: 10, any: 10, others: []string{}, wildcard: true}
	var heads []head
	for i := range 10_000 {
		heads = append(heads, headOf(fmt.Sprint("t", i), 0, -time.Duration(i+1)*time.Second, now))
	}
	l.walkedOver(heads, &tour{began: now}, everything, now)
	for claims := 0; l.more(w); claims++ {
		c := l.claim(w)
		if len(c.levels) > claimLevels {
			t.Fatalf("a claim looks into %d levels", len(c.levels))
		}
		if claims > 10_000/claimLevels+1 {
			t.Fatal("it doesn't come to an end")
		}
		l.note(c, claimedJobs(c.levels[0].jobType, 0, 1, now), false, now)
	}
	if len(l.rest) > keepLevels || len(l.byKey) > keepLevels {
		t.Errorf("%d levels without jobs are kept, %d in all", len(l.rest), len(l.byKey))
	}
	w.any = 0
	if c := l.claim(w); len(c.levels) != 0 {
		t.Error("it claims types that there is no room for")
	}
}

// What a claim reads does not grow with what is not for it: jobs behind, future ones of a higher priority, foreign types,
// finished ones, nor with index entries that earlier claims have left dead and a snapshot keeps.
func TestClaimReadsOnlyWhatItTakes(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn, holder := connect(t, url), connect(t, url)
	run(t, conn, `ALTER TABLE jobs SET (autovacuum_enabled = off)`)
	run(t, conn, `INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after) VALUES ('', '', 1, 1, '{}', '1 h', '1 s')`)
	run(t, conn, `INSERT INTO jobs (type, scheduled_for) SELECT 'mine', now() - interval '1 h' FROM generate_series(1, 200)`)
	small := claimBuffers(t, conn, "-infinity")
	for _, more := range []string{
		`INSERT INTO jobs (type, scheduled_for) SELECT 'mine', now() - interval '1 min' FROM generate_series(1, 50000)`,
		`INSERT INTO jobs (type, priority, scheduled_for) SELECT 'mine', 5, now() + interval '1 h' FROM generate_series(1, 50000)`,
		`INSERT INTO jobs (type, priority) SELECT 'other' || n % 1000, n % 7 FROM generate_series(1, 50000) n`,
		`INSERT INTO jobs (type, status) SELECT 'mine', 'completed' FROM generate_series(1, 50000)`,
	} {
		run(t, conn, more)
		if got := claimBuffers(t, conn, "-infinity"); got > small*13/10+20 {
			t.Errorf("a claim reads %d buffers, %d before\n%s", got, small, more)
		}
	}
	// A held snapshot, and 20,000 jobs claimed since.
	tx, err := holder.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM job_types`); err != nil {
		t.Fatal(err)
	}
	run(t, conn, `UPDATE jobs SET status = 'processing' WHERE id IN
		(SELECT id FROM jobs WHERE type = 'mine' AND priority = 0 AND status = 'pending' ORDER BY scheduled_for, id LIMIT 20000)`)
	var mark string
	if err := conn.QueryRow(t.Context(), `SELECT min(scheduled_for)::text FROM jobs WHERE type = 'mine' AND priority = 0 AND status = 'pending'`).Scan(&mark); err != nil {
		t.Fatal(err)
	}
	unmarked := claimBuffers(t, conn, "-infinity")
	var id string
	if err := conn.QueryRow(t.Context(), `SELECT id::text FROM jobs WHERE type = 'mine' AND priority = 0 AND status = 'pending' ORDER BY scheduled_for, id LIMIT 1`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	marked := claimBuffersAt(t, conn, mark, id)
	if marked > 2*small || unmarked < 10*marked {
		t.Errorf("with a held horizon a claim from the mark reads %d buffers, %d before, and %d without the mark", marked, small, unmarked)
	}
	_ = tx.Rollback(t.Context())
}

func claimBuffers(t *testing.T, conn *pgx.Conn, due string) int {
	t.Helper()
	return claimBuffersAt(t, conn, due, "00000000-0000-0000-0000-000000000000")
}

// claimBuffersAt returns how many buffers a claim of 100 jobs touches to find and lock them. It is rolled back.
func claimBuffersAt(t *testing.T, conn *pgx.Conn, due, id string) (buffers int) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	for _, step := range []string{newStatements("public", time.Minute).plain, `PREPARE hot AS ` + newStatements("public", time.Second).claim} {
		if _, err := tx.Exec(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	var plan []struct {
		Plan plan
	}
	err = tx.QueryRow(t.Context(), fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot(1, false, 1000, 100, '{mine}', '{0}', '{"%s"}', '{%s}')`, due, id),
		pgx.QueryExecModeSimpleProtocol).Scan(&plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `DEALLOCATE hot`); err != nil {
		t.Fatal(err)
	}
	locking := plan[0].Plan.find("LockRows")
	if locking == nil || locking.Rows != 100 {
		t.Fatalf("it did not lock 100 jobs: %+v", locking)
	}
	return locking.Hit + locking.Read
}

// plan is what the test reads of EXPLAIN's JSON.
type plan struct {
	Node  string  `json:"Node Type"`
	Rows  float64 `json:"Actual Rows"`
	Hit   int     `json:"Shared Hit Blocks"`
	Read  int     `json:"Shared Read Blocks"`
	Plans []plan
}

func (p *plan) find(node string) *plan {
	if p.Node == node {
		return p
	}
	for i := range p.Plans {
		if found := p.Plans[i].find(node); found != nil {
			return found
		}
	}
	return nil
}
