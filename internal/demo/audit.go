package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	auditEvery = 200 * time.Millisecond
	auditBatch = 5_000
	// Until the first job is seen completed, to say when that was.
	auditEagerly = 5 * time.Millisecond
)

// audit reads from the table what became of the stream's jobs, on a connection of its own.
type audit struct {
	conn   *pgx.Conn
	sql    statements
	ledger *ledger
}

// look brings the ledger up to date with the table.
func (a *audit) look(ctx context.Context) error {
	ids := a.ledger.openIDs(auditBatch)
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := a.conn.Query(ctx, a.sql.statuses, ids)
	if err != nil {
		return fmt.Errorf("look at jobs: %w", err)
	}
	seen, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sighting])
	if err != nil {
		return fmt.Errorf("look at jobs: %w", err)
	}
	for _, job := range seen {
		a.ledger.observe(job)
	}
	return nil
}

// letGo checks and forgets the oldest finished jobs where too many are remembered.
func (a *audit) letGo(ctx context.Context, now time.Time) error {
	a.ledger.forgetEarly(now)
	return a.check(ctx, a.ledger.surplus(maxRemembered))
}

// finish checks all jobs that are still remembered. It is to be called when nothing runs any more. With complete, none may
// be unfinished, and there may be no others; otherwise the unfinished are only counted.
func (a *audit) finish(ctx context.Context, complete bool) (unfinished int, err error) {
	if err := a.look(ctx); err != nil {
		return 0, err
	}
	unfinished = a.ledger.openCount()
	inserted := a.ledger.insertedCount()
	if err := a.check(ctx, a.ledger.take(complete)); err != nil {
		return unfinished, err
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := a.conn.Query(ctx, a.sql.ghosts, a.ledger.undoneIDs())
	if err != nil {
		return unfinished, fmt.Errorf("look for rows that were rolled back: %w", err)
	}
	ghosts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return unfinished, fmt.Errorf("look for rows that were rolled back: %w", err)
	}
	for _, id := range ghosts {
		a.ledger.surprise("job %s is in the table although it was rolled back", id)
	}
	if complete {
		return unfinished, a.count(ctx, inserted)
	}
	return unfinished, nil
}

// count finds rows that nobody inserted.
func (a *audit) count(ctx context.Context, inserted int) error {
	var types []string
	for _, way := range ways {
		types = append(types, way.jobType)
	}
	var total int
	if err := a.conn.QueryRow(ctx, a.sql.total, types).Scan(&total); err != nil {
		return fmt.Errorf("count jobs: %w", err)
	}
	if total != inserted {
		a.ledger.surprise("the table has %d jobs of the stream, not the %d that were inserted", total, inserted)
	}
	return nil
}

// check compares jobs with their rows.
func (a *audit) check(ctx context.Context, jobs []*entry) error {
	for batch := range slices.Chunk(jobs, 1_000) {
		if err := a.checkBatch(ctx, batch); err != nil {
			return fmt.Errorf("check jobs: %w", err)
		}
	}
	return nil
}

func (a *audit) checkBatch(ctx context.Context, jobs []*entry) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	ids := make([]string, len(jobs))
	for i, e := range jobs {
		ids[i] = e.id
	}
	rows, err := a.conn.Query(ctx, a.sql.rows, ids)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[row])
	if err != nil {
		return err
	}
	found := make(map[string]*row, len(all))
	for _, r := range all {
		found[r.ID] = r
	}
	a.ledger.verify(jobs, found)
	return nil
}
