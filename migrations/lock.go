package migrations

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

var errBusy = errors.New("another process is migrating the schema")

// locked runs work in a transaction that holds the migration lock, again and again while locks can't be had, until
// i.wait is over. Between tries nothing is held, so that nobody queues behind a migration that can't go on.
func (i installation) locked(ctx context.Context, conn *pgx.Conn, verb string, work func(pgx.Tx) error) error {
	started := time.Now()
	delay := 100 * time.Millisecond
	for told := false; ; {
		err := i.once(ctx, conn, work)
		if err == nil || !passes(err) {
			return err
		}
		waited := time.Since(started)
		blockers, lookErr := i.blockers(ctx, conn)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		if waited+delay > i.wait {
			return &BlockedError{Schema: i.schema, Waited: waited, Blockers: blockers, Command: i.command(verb), err: err}
		}
		if !told && !errors.Is(err, errBusy) {
			told = true
			i.logger.Info().Str("schema", i.schema).Stringers("blockers", stringers(blockers)).AnErr("error", err).Msg("waiting for locks")
		}
		if err := pause(ctx, delay/2+rand.N(delay)); err != nil {
			return err
		}
		delay = min(2*delay, 5*time.Second)
	}
}

func stringers(blockers []Blocker) []fmt.Stringer {
	all := make([]fmt.Stringer, len(blockers))
	for n, blocker := range blockers {
		all[n] = blocker
	}
	return all
}

// passes tells errors that time mends: lock_not_available, deadlock_detected, serialization_failure, and ours.
func passes(err error) bool {
	switch sqlState(err) {
	case "55P03", "40P01", "40001":
		return true
	}
	return errors.Is(err, errBusy)
}

func (i installation) once(ctx context.Context, conn *pgx.Conn, work func(pgx.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		var free bool
		if err := tx.QueryRow(ctx, i.fill(sqlTryLock), pgx.QueryExecModeSimpleProtocol).Scan(&free); err != nil {
			return err
		}
		if !free {
			return errBusy
		}
		if _, err := tx.Exec(ctx, i.pin(), pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		return work(tx)
	})
}

func (i installation) pin() string { return fmt.Sprintf(sqlPin, i.lockTimeout.Milliseconds()) }

func (i installation) blockers(ctx context.Context, conn *pgx.Conn) ([]Blocker, error) {
	rows, err := conn.Query(ctx, i.fill(sqlBlockers), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, fmt.Errorf("look who is in the way: %w", err)
	}
	blockers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Blocker, error) {
		var b Blocker
		var start *time.Time
		if err := row.Scan(&b.PID, &b.ApplicationName, &b.State, &start, &b.Prepared, &b.Holds); err != nil {
			return b, err
		}
		if start != nil {
			b.QueryStart = *start
		}
		return b, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look who is in the way: %w", err)
	}
	return blockers, nil
}

func pause(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
