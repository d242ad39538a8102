package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	pruneEvery = 10 * time.Minute // from the end of one walk over the table to the start of the next
	prunePages = 256              // of a step: 2 MB of the table
	pruneRest  = 20 * time.Millisecond
)

// pruneLoop deletes finished jobs past their retention, until ctx is done: it walks over the table in small steps, off the
// hot path.
func (d *Dispatcher) pruneLoop(ctx context.Context) {
	for {
		if err := d.prune(ctx); err != nil && ctx.Err() == nil {
			d.database.down("prune finished jobs", err)
		}
		if !sleep(ctx, pruneEvery/2+rand.N(pruneEvery)) {
			return
		}
	}
}

func (d *Dispatcher) prune(ctx context.Context) error {
	var pages int64
	if err := d.pool.QueryRow(ctx, d.sql.pages).Scan(&pages); err != nil {
		return fmt.Errorf("read size of jobs: %w", err)
	}
	deleted := 0
	for first := int64(0); first < pages; first += prunePages {
		n, err := d.pruneStep(ctx, first)
		if err != nil {
			return err
		}
		deleted += n
		if first+prunePages < pages && !sleep(ctx, pruneRest) {
			return nil
		}
	}
	if deleted > 0 {
		d.metrics.pruned.Add(float64(deleted))
		d.log.Info().Int("jobs", deleted).Msg("pruned finished jobs past their retention")
	}
	if _, err := d.pool.Exec(ctx, d.sql.pruneWorkers); err != nil {
		return fmt.Errorf("prune workers: %w", err)
	}
	return nil
}

func (d *Dispatcher) pruneStep(ctx context.Context, first int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	keep := d.config.Retention
	var deleted int
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, d.sql.prune, first, first+prunePages,
			keep.Completed.Seconds(), keep.Failed.Seconds(), keep.Cancelled.Seconds())
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[pgtype.UUID])
		if err != nil || len(ids) == 0 {
			return err
		}
		deleted = len(ids)
		_, err = tx.Exec(ctx, d.sql.pruneErrors, ids)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune jobs: %w", err)
	}
	return deleted, nil
}

// sleep returns false if ctx was done before the time was over.
func sleep(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
