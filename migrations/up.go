package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Up brings an installation to this program's version, making the schema if need be, and gives rights to the roles that
// were made since. It does nothing, and takes no lock, where nothing is to be done. It blocks for Config.Wait at most per
// step while locks can't be had. The errors that it knows: *ClashError, *BlockedError, *ChangedError, *SchemaError (Newer),
// *PrivilegeError.
func Up(ctx context.Context, conn *pgx.Conn, config Config) error {
	i, err := config.installation()
	if err != nil {
		return err
	}
	all, err := load()
	if err != nil {
		return err
	}
	for {
		next, now, err := i.next(ctx, conn, all)
		if err != nil {
			return fmt.Errorf("migrate schema %q: %w", i.schema, err)
		}
		if next == nil {
			return i.access(ctx, conn, now)
		}
		if err := i.apply(ctx, conn, all); err != nil {
			return fmt.Errorf("migrate schema %q: %w", i.schema, i.explain(err, now.role))
		}
	}
}

// next migration to apply, nil if there is none.
func (i installation) next(ctx context.Context, db Querier, all []migration) (*migration, situation, error) {
	now, err := i.look(ctx, db)
	if err != nil {
		return nil, now, err
	}
	if now.server < 140000 {
		return nil, now, fmt.Errorf("the server has version %d.%d: pgbell needs Postgres 14 or later", now.server/10000, now.server%10000)
	}
	if err := i.serving(now); err != nil {
		return nil, now, err
	}
	if err := i.unchanged(all, now); err != nil {
		return nil, now, err
	}
	for _, m := range all {
		if now.has(m.version) {
			continue
		}
		return &m, now, i.allowed(now)
	}
	return nil, now, nil
}

func (i installation) allowed(now situation) error {
	if now.mayCreate {
		return nil
	}
	role := pgx.Identifier{now.role}.Sanitize()
	if now.schemaExists {
		return &PrivilegeError{Role: now.role, Need: "create tables in schema " + i.quoted,
			Grant: fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s", i.quoted, role)}
	}
	return &PrivilegeError{Role: now.role, Need: "create schema " + i.quoted, Grant: fmt.Sprintf(
		"CREATE SCHEMA %s AUTHORIZATION %s, or GRANT CREATE ON DATABASE %s TO %s", i.quoted, role, pgx.Identifier{now.database}.Sanitize(), role)}
}

// apply the next migration under the lock: which one that is, is looked up again there.
func (i installation) apply(ctx context.Context, conn *pgx.Conn, all []migration) error {
	var done *migration
	started := time.Now()
	err := i.locked(ctx, conn, "up", func(tx pgx.Tx) error {
		next, _, err := i.next(ctx, tx, all)
		if done = next; err != nil || next == nil {
			return err
		}
		_, err = tx.Exec(ctx, i.script(*next), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil || done == nil {
		return err
	}
	i.logger.Info().Str("schema", i.schema).Int("version", done.version).Str("name", done.name).
		Int64("duration_ms", time.Since(started).Milliseconds()).Msg("migration applied")
	return nil
}

// access gives rights to roles that were made after the installation. An installation that a newer pgbell made is left
// to that one.
func (i installation) access(ctx context.Context, conn *pgx.Conn, now situation) error {
	if now.version() > Version {
		return nil
	}
	var stale bool
	if err := conn.QueryRow(ctx, i.fill(sqlAccessStale), pgx.QueryExecModeSimpleProtocol).Scan(&stale); err != nil {
		return fmt.Errorf("check the rights on schema %q: %w", i.schema, i.explain(err, now.role))
	}
	if !stale {
		return nil
	}
	err := i.locked(ctx, conn, "up", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, i.fill(sqlAccess), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return fmt.Errorf("give rights on schema %q: %w", i.schema, i.explain(err, now.role))
	}
	i.logger.Info().Str("schema", i.schema).Msg("rights brought up to the roles that exist")
	return nil
}
