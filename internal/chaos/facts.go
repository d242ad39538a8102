package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Facts are all that is known of a scenario when it is over: the history, and the tables.
type Facts struct {
	Events      []Event
	Jobs        []Row
	Transitions []Transition
	Errors      []FailedAttempt
	Workers     []Worker
	Strain      time.Duration // see Figures
}

// Row of jobs.
type Row struct {
	ID                    string
	Number                int
	Type, Status          string
	Attempts, MaxAttempts int
	Crashes               int
	Error                 string
	ResultLease           string // the attempt that made the result
	Lease                 string
	Held, Completed       bool // worker_id and completed_at are set
}

// Transition of a job, as the trigger saw it. At is by the database's clock.
type Transition struct {
	At                       time.Time
	Job                      string
	OldStatus, NewStatus     string
	OldLease, NewLease       string
	OldWorker, NewWorker     int
	OldAttempts, NewAttempts int
	OldCrashes, NewCrashes   int

	taken bool // job_errors says that the old lease's worker died
}

// claims: a lease begins.
func (t Transition) claims() bool {
	return t.NewStatus == statusProcessing && t.NewLease != t.OldLease
}

// leaves: a lease ends.
func (t Transition) leaves() bool {
	return t.OldStatus == statusProcessing && t.OldLease != t.NewLease
}

// FailedAttempt is a row of job_errors.
type FailedAttempt struct {
	Job, Lease string
	Attempt    int
	Error      string
	Worker     int
}

// Worker is a registration: the name has host and process id.
type Worker struct {
	ID   int
	Name string
}

// collect reads all facts. The sidecars have ended.
func (w *World) collect(ctx context.Context) (*Facts, error) {
	var facts Facts
	var err error
	if facts.Events, err = ReadHistory(w.historyPath()); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, w.URL())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if facts.Jobs, err = readAll[Row](ctx, conn, jobsSQL); err != nil {
		return nil, err
	}
	if facts.Transitions, err = readAll[Transition](ctx, conn, transitionsSQL); err != nil {
		return nil, err
	}
	if facts.Errors, err = readAll[FailedAttempt](ctx, conn, errorsSQL); err != nil {
		return nil, err
	}
	facts.Workers, err = readAll[Worker](ctx, conn, workersSQL)
	return &facts, err
}

func readAll[T any](ctx context.Context, conn *pgx.Conn, sql string) ([]T, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("read tables: %w", err)
	}
	return all, nil
}
