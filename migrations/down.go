package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DownOptions say how far to go, and what to put up with.
type DownOptions struct {
	// To is the version to go down to; 0 takes pgbell out of the schema; negative goes that many steps.
	To int
	// Force goes on where sidecars are running, or unfinished jobs would be dropped.
	Force bool
}

// Down takes migrations back, the newest first, each in its own transaction. A jobs table that was there before pgbell
// stays with its rows, without what pgbell added; everything else that pgbell made is dropped, jobs included, but for the
// schema itself and the roles pgbell_producer and pgbell_worker, which other databases may use. A *RefusedError says what
// speaks against it, unless it is forced. An object of the application's that depends on pgbell's is never dropped: the error names it.
func Down(ctx context.Context, conn *pgx.Conn, config Config, options DownOptions) error {
	i, err := config.installation()
	if err != nil {
		return err
	}
	all, err := load()
	if err != nil {
		return err
	}
	now, err := i.look(ctx, conn)
	if err != nil {
		return fmt.Errorf("migrate schema %q down: %w", i.schema, err)
	}
	to := options.To
	if to < 0 {
		to = max(now.version()+to, 0)
	}
	if to > now.version() {
		return fmt.Errorf("migrate schema %q down: it is at version %d, below %d", i.schema, now.version(), to)
	}
	for done := false; !done; {
		err := i.locked(ctx, conn, "down", func(tx pgx.Tx) error {
			var err error
			done, err = i.back(ctx, tx, all, to, options.Force)
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate schema %q down: %w", i.schema, i.explain(err, now.role))
		}
	}
	return nil
}

// back takes the newest migration back.
func (i installation) back(ctx context.Context, tx pgx.Tx, all []migration, to int, force bool) (done bool, err error) {
	now, err := i.look(ctx, tx)
	if err != nil {
		return false, err
	}
	version := now.version()
	if version <= to {
		return true, nil
	}
	if version > Version {
		return false, fmt.Errorf("it is at version %d, which this pgbell doesn't know: use the newer one", version)
	}
	if err := i.unchanged(all, now); err != nil {
		return false, err
	}
	if version >= 2 && !force {
		if err := i.harmless(ctx, tx, to); err != nil {
			return false, err
		}
	}
	m := all[version-1]
	end := fmt.Sprintf(sqlForget, version)
	if version == 1 {
		end = sqlLeave
	}
	if _, err := tx.Exec(ctx, i.fill(m.down)+i.fill(end), pgx.QueryExecModeSimpleProtocol); err != nil {
		return false, fmt.Errorf("take back migration %04d_%s: %w", m.version, m.name, err)
	}
	i.logger.Info().Str("schema", i.schema).Int("version", m.version).Str("name", m.name).Msg("migration taken back")
	return false, nil
}

// harmless: no sidecar is at work that needs more than version to, and no job would be lost.
func (i installation) harmless(ctx context.Context, tx pgx.Tx, to int) error {
	if _, err := tx.Exec(ctx, i.fill(sqlHold), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	refused := RefusedError{Schema: i.schema}
	err := tx.QueryRow(ctx, i.fill(fmt.Sprintf(sqlAtStake, to)), pgx.QueryExecModeSimpleProtocol).Scan(&refused.Sidecars, &refused.Unfinished)
	if err != nil {
		return fmt.Errorf("count what is at stake: %w", err)
	}
	if refused.Sidecars > 0 || refused.Unfinished > 0 {
		return &refused
	}
	return nil
}

// IsMismatch says whether an error is a SchemaError of this kind.
func IsMismatch(err error, kind Mismatch) bool {
	var mismatch *SchemaError
	return errors.As(err, &mismatch) && mismatch.Kind == kind
}
