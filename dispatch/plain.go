package dispatch

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// queryPlain runs a statement under plainSQL, in a transaction of its own and one round trip. The rows are returned after
// the commit alone.
func queryPlain[T any](ctx context.Context, pool *pgxpool.Pool, scan pgx.RowToFunc[T], statement string, arguments ...any) ([]T, error) {
	return queryUnder(ctx, pool, plainSQL, scan, statement, arguments...)
}

// queryUnder does the same under other settings.
func queryUnder[T any](ctx context.Context, pool *pgxpool.Pool, settings string, scan pgx.RowToFunc[T], statement string, arguments ...any) (found []T, err error) {
	batch := &pgx.Batch{}
	batch.Queue(settings)
	batch.Queue(statement, arguments...).Query(func(rows pgx.Rows) error {
		found, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, err
	}
	return found, nil
}

// execUnder does the same for a statement without rows. It returns how many it affected.
func execUnder(ctx context.Context, pool *pgxpool.Pool, settings, statement string, arguments ...any) (affected int64, err error) {
	batch := &pgx.Batch{}
	batch.Queue(settings)
	batch.Queue(statement, arguments...).Exec(func(tag pgconn.CommandTag) error {
		affected = tag.RowsAffected()
		return nil
	})
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return 0, err
	}
	return affected, nil
}
