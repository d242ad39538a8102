package dispatch

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// queryUnder runs a statement under settings, in a transaction of its own and one round trip. The rows are returned after the
// commit alone.
func queryUnder[T any](ctx context.Context, to sender, settings string, scan pgx.RowToFunc[T], statement string, arguments ...any) (found []T, err error) {
	batch := &pgx.Batch{}
	batch.Queue(settings)
	batch.Queue(statement, arguments...).Query(func(rows pgx.Rows) error {
		found, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err := to.send(ctx, batch); err != nil {
		return nil, err
	}
	return found, nil
}

// execUnder does the same for a statement without rows. It returns how many it affected.
func execUnder(ctx context.Context, to sender, settings, statement string, arguments ...any) (affected int64, err error) {
	batch := &pgx.Batch{}
	batch.Queue(settings)
	batch.Queue(statement, arguments...).Exec(func(tag pgconn.CommandTag) error {
		affected = tag.RowsAffected()
		return nil
	})
	if err := to.send(ctx, batch); err != nil {
		return 0, err
	}
	return affected, nil
}
