package listener_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// outcome of a transaction, as its client knows it.
type outcome int

const (
	aborted outcome = iota
	committed
	unknown // its connection was lost at the commit
)

// ledger is what the producers know of their transactions. The first half of a job's id is the number of its transaction.
type ledger struct {
	mu    sync.Mutex
	notes []note
}

type note struct {
	outcome outcome
	rows    int
	at      time.Time // when the commit was known
	owed    bool      // in time; else only by the fallback poll
	kind    string
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.notes)
}

func (l *ledger) begin(kind string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, note{kind: kind, owed: true})
	return uint64(len(l.notes) - 1)
}

func (l *ledger) end(number uint64, outcome outcome, rows int, owed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.notes[number]
	n.outcome, n.rows, n.at, n.owed = outcome, rows, time.Now(), owed
}

// tempo is how hard all producers press at present: 0 not at all, 1 as fast as they can, else a pause of up to tempo ms.
type tempo struct {
	atomic.Int64
	active atomic.Int64 // producers that are not waiting for the next round
}

// producer inserts jobs in transactions of all kinds.
type producer struct {
	url    string
	random *rand.Rand
	ledger *ledger
	tempo  *tempo
	pid    *atomic.Uint32
	// lingers is for how many ms at most a transaction stays open.
	lingers int

	conn *pgx.Conn
}

func (p *producer) run(ctx context.Context) error {
	defer func() {
		if p.conn != nil {
			_ = p.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		tempo := p.tempo.Load()
		if tempo != 1 {
			p.pause(ctx, max(int(tempo), 5))
		}
		// Counted before it is looked at once more: who sees nobody active after having stored 0 sees nobody begin.
		p.tempo.active.Add(1)
		if p.tempo.Load() == 0 {
			p.tempo.active.Add(-1)
			continue
		}
		if p.conn == nil || p.conn.IsClosed() {
			conn, err := pgx.Connect(context.WithoutCancel(ctx), p.url)
			if err != nil {
				p.tempo.active.Add(-1)
				return err
			}
			p.conn = conn
			p.pid.Store(conn.PgConn().PID())
		}
		p.transact(context.WithoutCancel(ctx))
		p.tempo.active.Add(-1)
	}
	return nil
}

// pause waits for up to most ms.
func (p *producer) pause(ctx context.Context, most int) {
	timer := time.NewTimer(time.Duration(p.random.IntN(most*1000+1)) * time.Microsecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func ids(number uint64, from, count int) [][16]byte {
	made := make([][16]byte, count)
	for i := range made {
		binary.BigEndian.PutUint64(made[i][:8], number)
		binary.BigEndian.PutUint64(made[i][8:], uint64(from+i))
	}
	return made
}

const (
	insertMany  = `INSERT INTO jobs (id, type) SELECT id, $2 FROM unnest($1::uuid[]) id`
	insertAside = `INSERT INTO jobs (id, type, status) SELECT id, $2, 'cancelled' FROM unnest($1::uuid[]) id`
	makePending = `UPDATE jobs SET status = 'pending', scheduled_for = now() WHERE id = ANY ($1)`
)

// transact does one transaction and notes what came of it. Faults that others cause are expected.
func (p *producer) transact(ctx context.Context) {
	kinds := []struct {
		name   string
		weight int
		do     func(ctx context.Context, number uint64, jobType string) (rows int, err error)
	}{
		{"single", 50, p.single}, {"several", 15, p.several}, {"savepoints", 12, p.savepoints}, {"copy", 6, p.copy},
		{"update", 8, p.update}, {"two-phase silenced", 5, p.twoPhaseSilenced}, {"two-phase", 4, p.twoPhase},
	}
	draw := p.random.IntN(100)
	for _, kind := range kinds {
		if draw -= kind.weight; draw >= 0 {
			continue
		}
		jobType := "a"
		if p.random.IntN(5) == 0 {
			jobType = "b"
		}
		number := p.ledger.begin(kind.name)
		rows, err := kind.do(ctx, number, jobType)
		var refusal *pgconn.PgError
		switch {
		case err == nil && rows < 0: // no ring follows its commit
			p.ledger.end(number, committed, -rows, false)
		case err == nil:
			p.ledger.end(number, committed, rows, true)
		case errors.Is(err, errRolledBack), errors.As(err, &refusal) && refusal.Severity == "ERROR":
			p.ledger.end(number, aborted, 0, false)
		default:
			p.ledger.end(number, unknown, 0, false)
		}
		if err != nil && !p.conn.IsClosed() {
			_, _ = p.conn.Exec(ctx, "ROLLBACK") // if it is gone, the next transaction connects anew
		}
		return
	}
}

var errRolledBack = errors.New("rolled back")

func (p *producer) exec(ctx context.Context, sql string, args ...any) error {
	_, err := p.conn.Exec(ctx, sql, args...)
	return err
}

func (p *producer) single(ctx context.Context, number uint64, jobType string) (int, error) {
	return 1, p.exec(ctx, insertMany, ids(number, 0, 1), jobType)
}

// linger is how long a transaction stays open after its first statement: mostly not at all.
func (p *producer) linger(ctx context.Context) {
	switch p.random.IntN(10) {
	case 0:
		p.pause(ctx, p.lingers)
	case 1, 2:
		p.pause(ctx, 5)
	}
}

func (p *producer) commit(ctx context.Context) error {
	p.linger(ctx)
	if p.random.IntN(8) == 0 {
		return errors.Join(p.exec(ctx, "ROLLBACK"), errRolledBack)
	}
	return p.exec(ctx, "COMMIT")
}

func (p *producer) several(ctx context.Context, number uint64, jobType string) (int, error) {
	if err := p.exec(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	rows := 0
	for range 1 + p.random.IntN(3) {
		count := 1 + p.random.IntN(20)
		if err := p.exec(ctx, insertMany, ids(number, rows, count), jobType); err != nil {
			return 0, err
		}
		rows += count
		p.linger(ctx)
	}
	return rows, p.commit(ctx)
}

func (p *producer) savepoints(ctx context.Context, number uint64, jobType string) (int, error) {
	if err := p.exec(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	rows := 0
	for at := range 1 + p.random.IntN(4) {
		inside := p.random.IntN(3) > 0
		back := inside && p.random.IntN(2) == 0
		if inside {
			if err := p.exec(ctx, "SAVEPOINT s"); err != nil {
				return 0, err
			}
		}
		if err := p.exec(ctx, insertMany, ids(number, at, 1), jobType); err != nil {
			return 0, err
		}
		p.linger(ctx)
		end := "RELEASE s"
		if back {
			end = "ROLLBACK TO s"
		} else {
			rows++
		}
		if inside {
			if err := p.exec(ctx, end); err != nil {
				return 0, err
			}
		}
	}
	return rows, p.commit(ctx)
}

func (p *producer) copy(ctx context.Context, number uint64, jobType string) (int, error) {
	rows := 1 + p.random.IntN(50)
	made := ids(number, 0, rows)
	_, err := p.conn.CopyFrom(ctx, pgx.Identifier{"jobs"}, []string{"id", "type"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{made[i], jobType}, nil }))
	return rows, err
}

func (p *producer) update(ctx context.Context, number uint64, jobType string) (int, error) {
	rows := 1 + p.random.IntN(3)
	aside := p.ledger.begin("aside")
	if err := p.exec(ctx, insertAside, ids(aside, 0, rows), jobType); err != nil {
		p.ledger.end(aside, unknown, 0, false)
		return 0, err
	}
	// These ids are noted as the update's: whether it has happened is known by them.
	p.ledger.end(aside, unknown, 0, false)
	if err := p.exec(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	if err := p.exec(ctx, makePending, ids(aside, 0, rows)); err != nil {
		return 0, err
	}
	if err := p.commit(ctx); err != nil {
		return 0, err
	}
	p.ledger.end(aside, committed, rows, true)
	return 0, nil
}

// twoPhaseSilenced says that no ring is wanted; mostly it rings later.
func (p *producer) twoPhaseSilenced(ctx context.Context, number uint64, jobType string) (int, error) {
	if err := p.exec(ctx, "BEGIN; SET LOCAL pgbell.ring = 'off'"); err != nil {
		return 0, err
	}
	if err := p.prepare(ctx, number, jobType); err != nil {
		return 0, err
	}
	if p.random.IntN(5) == 0 {
		return -1, nil
	}
	if err := p.exec(ctx, "SELECT ring_jobs()"); err != nil {
		return -1, nil // cancelled: the row is there, without a ring
	}
	return 1, nil
}

// twoPhase can be prepared only if its insert was silent.
func (p *producer) twoPhase(ctx context.Context, number uint64, jobType string) (int, error) {
	if err := p.exec(ctx, "BEGIN"); err != nil {
		return 0, err
	}
	return 1, p.prepare(ctx, number, jobType)
}

func (p *producer) prepare(ctx context.Context, number uint64, jobType string) error {
	if err := p.exec(ctx, insertMany, ids(number, 0, 1), jobType); err != nil {
		return err
	}
	name := fmt.Sprintf("'stress %d'", number)
	if err := p.exec(ctx, "PREPARE TRANSACTION "+name); err != nil {
		return err
	}
	p.linger(ctx)
	// A prepared transaction must end, whoever is cut off: it is left to a connection that nobody ends.
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "COMMIT PREPARED "+name)
	return err
}
