package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxOpen is how many unfinished jobs the stream leaves behind before it waits for the dispatcher to catch up.
const maxOpen = 2_000

// statementTimeout bounds each statement of the stream and of the audit.
const statementTimeout = 30 * time.Second

// stream is an application that inserts jobs, and knows no more of pgbell than its table.
type stream struct {
	conn   *pgx.Conn
	sql    statements
	plan   *plan
	ledger *ledger
	rate   float64 // rows a second
}

// run inserts until ctx is done or, with a limit, until no job could end by then any more. An insert that has begun is
// finished, so that its outcome is known.
func (s *stream) run(ctx context.Context, length time.Duration) error {
	began, rows := time.Now(), 0
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		if s.ledger.openCount() > maxOpen {
			pause.Reset(20 * time.Millisecond)
			continue
		}
		batch, more := s.plan.next(length-time.Since(began), length > 0)
		if !more {
			return nil
		}
		if err := s.insert(context.WithoutCancel(ctx), batch); err != nil {
			return fmt.Errorf("insert jobs: %w", err)
		}
		rows += len(batch.jobs)
		due := time.Duration(float64(rows) / s.rate * float64(time.Second))
		pause.Reset(max(time.Until(began.Add(due)), 0))
	}
}

func (s *stream) insert(ctx context.Context, batch batch) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	switch batch.scenario.shape {
	case shapeBulk:
		return s.insertBulk(ctx, batch.jobs)
	case shapeSavepoint:
		return s.insertSavepoint(ctx, batch.jobs)
	case shapeAborted:
		return s.insertAborted(ctx, batch.jobs[0])
	case shapeDuplicate:
		return s.insertDuplicate(ctx, batch.jobs)
	default:
		id, err := s.insertOne(ctx, s.conn, batch.jobs[0])
		if err != nil {
			return err
		}
		s.ledger.insertedAt(time.Now(), []string{id}, batch.jobs)
		return nil
	}
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// insertOne returns the id that the database gave the row. A refused duplicate is pgx.ErrNoRows.
func (s *stream) insertOne(ctx context.Context, on querier, job plannedJob) (string, error) {
	payload, err := json.Marshal(job.payload)
	if err != nil {
		return "", err
	}
	var id string
	if job.priority == 0 && job.delay == 0 && job.maxAttempts == 0 && job.uniqueKey == "" {
		err = on.QueryRow(ctx, s.sql.insert, job.jobType, string(payload)).Scan(&id)
		return id, err
	}
	attempts := job.maxAttempts
	if attempts == 0 {
		attempts = 3
	}
	var key *string
	if job.uniqueKey != "" {
		key = &job.uniqueKey
	}
	err = on.QueryRow(ctx, s.sql.insertOptions, job.jobType, string(payload), job.priority, job.delay, attempts, key).Scan(&id)
	return id, err
}

// insertDuplicate inserts a job that waits, and then others with its key.
func (s *stream) insertDuplicate(ctx context.Context, jobs []plannedJob) error {
	before := time.Now()
	for i, job := range jobs {
		id, err := s.insertOne(ctx, s.conn, job)
		switch {
		case errors.Is(err, pgx.ErrNoRows) && i > 0:
			s.ledger.refusedRow()
		case err != nil:
			return err
		default:
			s.ledger.insertedAt(time.Now(), []string{id}, jobs[i:i+1])
			// On a machine that was suspended meanwhile, the first one may have finished.
			if i > 0 && time.Since(before) < job.delay {
				s.ledger.surprise("%s %s (%s): inserted although a job with its unique_key was waiting", job.jobType, id, job.scenario)
			}
		}
	}
	return nil
}

// numbered tells which of the planned jobs got which id.
type numbered struct {
	ID     string
	Number int64
}

func (s *stream) insertBulk(ctx context.Context, jobs []plannedJob) error {
	first, last := jobs[0].number, jobs[len(jobs)-1].number
	rows, err := s.conn.Query(ctx, s.sql.insertBulk, jobs[0].jobType, first, last)
	if err != nil {
		return err
	}
	inserted, err := pgx.CollectRows(rows, pgx.RowToStructByPos[numbered])
	if err != nil {
		return err
	}
	committed := time.Now()
	ids := make([]string, len(jobs))
	for _, one := range inserted {
		ids[one.Number-first] = one.ID
	}
	s.ledger.insertedAt(committed, ids, jobs)
	return nil
}

// insertSavepoint commits the first and the third of three jobs.
func (s *stream) insertSavepoint(ctx context.Context, jobs []plannedJob) error {
	var ids [3]string
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) (err error) {
		if ids[0], err = s.insertOne(ctx, tx, jobs[0]); err != nil {
			return err
		}
		savepoint, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if ids[1], err = s.insertOne(ctx, savepoint, jobs[1]); err != nil {
			return err
		}
		if err := savepoint.Rollback(ctx); err != nil {
			return err
		}
		ids[2], err = s.insertOne(ctx, tx, jobs[2])
		return err
	})
	if err != nil {
		return err
	}
	s.ledger.insertedAt(time.Now(), []string{ids[0], ids[2]}, []plannedJob{jobs[0], jobs[2]})
	s.ledger.rolledBackRow(ids[1], jobs[1])
	return nil
}

func (s *stream) insertAborted(ctx context.Context, job plannedJob) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	id, err := s.insertOne(ctx, tx, job)
	if err := errors.Join(err, tx.Rollback(ctx)); err != nil {
		return err
	}
	s.ledger.rolledBackRow(id, job)
	return nil
}
