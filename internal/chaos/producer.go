package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	insertTimeout = 10 * time.Second
	// lightBatch is how many light jobs a transaction has, for rates that one connection can't reach one by one.
	lightBatch = 10
	// manyAttempts are more than a job of a scenario can lose by crashes.
	manyAttempts = 25
)

// producer inserts jobs as an application does, and notes what it intends before each commit and what was answered after it.
type producer struct {
	url         string
	load        Load
	history     *History
	seed        uint64
	random      *rand.Rand // of what is drawn now
	number      int        // of the last job
	poison      int        // poison jobs that are still to come
	nextPoison  time.Time
	poisonEvery time.Duration
	conn        *pgx.Conn
}

// run inserts until ctx is done. Nothing that the database does ends it.
func (p *producer) run(ctx context.Context) error {
	defer p.hangUp()
	p.poison = p.load.Poison
	next := time.Now()
	for {
		specs := p.draw()
		if err := p.insert(ctx, specs); err != nil {
			return err
		}
		// What was late is made up for, within limits: the load is the same whatever the database does.
		next = next.Add(time.Duration(float64(len(specs)) / p.load.Rate * float64(time.Second)))
		if behind := time.Now().Add(-time.Second); next.Before(behind) {
			next = behind
		}
		if pause(ctx, time.Until(next)) != nil {
			return nil
		}
	}
}

// draw makes the jobs of one transaction: most have one.
func (p *producer) draw() []Spec {
	p.random = rand.New(rand.NewPCG(p.seed, uint64(p.number)<<1|1))
	n := 1
	if p.load.Light {
		n = lightBatch
	} else if p.random.IntN(4) == 0 {
		n = 2 + p.random.IntN(9)
	}
	specs := make([]Spec, n)
	for i := range specs {
		specs[i] = p.drawOne()
	}
	return specs
}

// drawOne draws by the job's number: what became of those before it changes nothing.
func (p *producer) drawOne() Spec {
	p.number++
	p.random = rand.New(rand.NewPCG(p.seed, uint64(p.number)<<1))
	if p.poison > 0 && time.Now().After(p.nextPoison) {
		p.poison--
		p.nextPoison = time.Now().Add(p.poisonEvery)
		return Spec{Number: p.number, Type: typePoison, Poison: true, MaxAttempts: 3}
	}
	// Durations are spread from nothing to twice the mean.
	spec := Spec{Number: p.number, Type: typeWeb, Run: time.Duration(p.random.Float64() * 2 * float64(p.load.Run)), MaxAttempts: manyAttempts}
	if p.load.Light {
		return spec
	}
	switch draw := p.random.IntN(100); {
	case draw < 12:
		spec.Type = typeScript
	case draw < 20:
		spec.Type, spec.Run = typeSlow, spec.Run*8
	case draw < 28:
		spec.Type, spec.Fails = typeFlaky, 1+p.random.IntN(2)
	case draw < 31:
		spec.Type, spec.Refused = typeRefused, true
	case draw < 34:
		spec.Type, spec.Fails, spec.MaxAttempts = typeRefused, 2, 2
	}
	if p.random.IntN(5) == 0 {
		spec.Priority = p.random.IntN(7) - 3
	}
	if p.random.IntN(6) == 0 {
		spec.Delay = time.Duration(p.random.IntN(5000)) * time.Millisecond
	}
	if p.random.IntN(12) == 0 {
		spec.UniqueKey = fmt.Sprintf("key%d", p.random.IntN(4))
	}
	return spec
}

// insert makes one transaction of them. An error is one of the history alone.
func (p *producer) insert(ctx context.Context, specs []Spec) error {
	abort := p.random.IntN(10) == 0
	if p.conn == nil || p.conn.IsClosed() {
		p.hangUp()
		var err error
		connecting, cancel := context.WithTimeout(ctx, insertTimeout)
		defer cancel()
		if p.conn, err = pgx.Connect(connecting, p.url); err != nil {
			p.conn = nil
			return nil // these jobs were never intended
		}
	}
	if err := p.history.Note(Event{Kind: Intended, Jobs: specs}); err != nil {
		return err
	}
	// A transaction that has begun is finished when the load ends.
	inserting, cancel := context.WithTimeout(context.WithoutCancel(ctx), insertTimeout)
	defer cancel()
	in, err := p.transact(inserting, specs, abort)
	inserted := func(s Spec) bool { return slices.Contains(in, s.Number) }
	all := slices.Clone(specs)
	switch {
	case abort:
		return p.history.Note(Event{Kind: RolledBack, Jobs: all})
	case err != nil:
		p.hangUp()
		return p.history.Note(Event{Kind: Unknown, Jobs: all})
	}
	if out := slices.DeleteFunc(all, inserted); len(out) > 0 { // duplicates
		if err := p.history.Note(Event{Kind: RolledBack, Jobs: out}); err != nil {
			return err
		}
	}
	return p.history.Note(Event{Kind: Committed, Jobs: slices.DeleteFunc(slices.Clone(specs), func(s Spec) bool { return !inserted(s) })})
}

// transact returns the numbers of those that went in. One statement alone needs no transaction around it.
func (p *producer) transact(ctx context.Context, specs []Spec, abort bool) (in []int, err error) {
	text, err := json.Marshal(specs)
	if err != nil {
		return nil, fmt.Errorf("insert jobs: %w", err)
	}
	insert := func(querier interface {
		Query(context.Context, string, ...any) (pgx.Rows, error)
	}) error {
		rows, err := querier.Query(ctx, insertSQL, string(text))
		if err != nil {
			return fmt.Errorf("insert jobs: %w", err)
		}
		in, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}
	if !abort && p.random.IntN(2) == 0 {
		err := insert(p.conn)
		return in, err
	}
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if err := insert(tx); err != nil || abort {
		return nil, err
	}
	return in, tx.Commit(ctx)
}

func (p *producer) hangUp() {
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx) // a server that is gone needs no goodbye
	p.conn = nil
}
