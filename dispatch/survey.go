package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// survey is what one look at the fleet and its jobs has found, all of it in one transaction and one round trip.
type survey struct {
	suspects []suspect
	reaped   []bool    // jobs past their held_until, given back
	prospect *prospect // nil: not asked for
	upkeep   *upkeep   // nil: not asked for
}

// prospect says when somebody may come to hold jobs.
type prospect struct {
	due       *float64 // seconds until the next job that a living worker has a handler for is due; nil if none waits
	heldUntil *float64 // seconds until the time of the next job that no worker holds is over
	cut       bool     // there are more types than were looked at
	unhandled []string // types with a job that has been due for a minute and that no living worker has a handler for
}

// upkeep is what is looked at once a minute.
type upkeep struct {
	table   table
	horizon HorizonReport
}

// maxSurveyed bounds the types that a survey looks at.
const maxSurveyed = 1000

func (d *Dispatcher) survey(ctx context.Context, ask, keepUp bool) (survey, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	var s survey
	batch := &pgx.Batch{}
	batch.Queue(d.sql.plain)
	batch.Queue(d.sql.suspects, d.worker.Load()).Query(func(rows pgx.Rows) (err error) {
		s.suspects, err = pgx.CollectRows(rows, scanSuspect)
		return err
	})
	batch.Queue(d.sql.reapHeld).Query(func(rows pgx.Rows) (err error) {
		s.reaped, err = pgx.CollectRows(rows, pgx.RowTo[bool])
		return err
	})
	if ask || keepUp {
		s.prospect = &prospect{}
		batch.Queue(d.sql.prospect, maxSurveyed).QueryRow(func(row pgx.Row) error {
			return row.Scan(&s.prospect.due, &s.prospect.heldUntil, &s.prospect.cut, &s.prospect.unhandled)
		})
	}
	if keepUp {
		d.queueUpkeep(batch, &s)
	}
	if err := d.reaping.send(ctx, batch); err != nil {
		return survey{}, fmt.Errorf("look for dead workers: %w", err)
	}
	return s, nil
}

func (d *Dispatcher) queueUpkeep(batch *pgx.Batch, s *survey) {
	s.upkeep = &upkeep{}
	batch.Queue(d.sql.table, d.worker.Load()).QueryRow(func(row pgx.Row) error {
		t, h := &s.upkeep.table, &s.upkeep.horizon
		return row.Scan(&t.pages, &t.file, &t.turn, &h.DeadRows, &h.LiveRows)
	})
	batch.Queue(horizonSQL).Query(func(rows pgx.Rows) (err error) {
		s.upkeep.horizon.Holders, err = pgx.CollectRows(rows, scanHolder)
		return err
	})
	batch.Queue(d.sql.pruneWorkers)
}

func scanSuspect(row pgx.CollectableRow) (suspect, error) {
	var s suspect
	var leaseTime, deadAfter float64
	err := row.Scan(&s.worker, &s.heartbeat, &s.dead, &leaseTime, &deadAfter, &s.absent, &s.server)
	s.leaseTime, s.deadAfter = seconds(leaseTime), seconds(deadAfter)
	return s, err
}

// wait is how long it is, where nobody else holds jobs now, until somebody could have taken one.
func (p *prospect) wait() time.Duration {
	next := reapSeldom
	if p.due != nil {
		next = min(next, seconds(*p.due)+reapOften)
	}
	if p.heldUntil != nil {
		next = min(next, seconds(*p.heldUntil))
	}
	if p.cut {
		next = min(next, reapSometimes)
	}
	return max(next, reapOften)
}
