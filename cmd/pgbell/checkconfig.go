package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/migrations"
)

func (a *app) newConfigCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.newConfigCheckCommand(), a.newConfigPrintCommand())
	return command
}

func (a *app) newConfigCheckCommand() *cobra.Command {
	var reach, asJSON bool
	command := &cobra.Command{
		Use:   "check",
		Short: "Say all that is wrong with the configuration",
		Long: `Says all that is wrong with the configuration: exit 2 if something is. With --connect it also connects to the
database, within 10 seconds, and looks whether the schema fits: exit 3 or 4 if not.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			settings, err := a.load(command, false)
			if err != nil {
				return err
			}
			for _, warning := range settings.Warnings {
				fmt.Fprintf(a.stderr, "warning: %s\n", printable(warning))
			}
			if err := a.checkForRun(settings); err != nil {
				return err
			}
			if reach {
				if err := a.checkDatabase(command.Context(), settings); err != nil {
					return err
				}
			}
			return a.printChecked(settings, reach, asJSON)
		},
	}
	command.Flags().BoolVar(&reach, "connect", false, "connect to the database too")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

// checkForRun finds the mistakes that run would stop at.
func (a *app) checkForRun(settings *config.Config) error {
	pool, err := a.newPool(settings, "pgbell command", workConns, &atomic.Bool{}, func() bool { return false })
	if err != nil {
		return err
	}
	defer pool.Close()
	built, err := buildHandlers(settings, pool, nil)
	if err != nil {
		return err
	}
	built.close()
	return nil
}

func (a *app) checkDatabase(ctx context.Context, settings *config.Config) error {
	return a.withConn(ctx, settings, func(conn *pgx.Conn) error {
		if direct := settings.Database.ListenURL; direct != "" && direct != settings.Database.URL {
			return a.checkListen(ctx, settings, conn)
		}
		return nil
	})
}

// checkListen looks whether both URLs lead to one database: a bell in another one rings for nobody.
func (a *app) checkListen(ctx context.Context, settings *config.Config, conn *pgx.Conn) error {
	target, err := a.connConfig(settings, settings.Database.ListenURL, "pgbell command")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	direct, err := pgx.ConnectConfig(ctx, target)
	if err != nil {
		return fmt.Errorf("database.listen_url: %w", &connectError{err: err})
	}
	defer closeConn(ctx, direct)
	if err := migrations.Check(ctx, direct, settings.Database.Schema); err != nil {
		return fmt.Errorf("database.listen_url: %w", err)
	}
	same, err := sameDatabase(ctx, conn, direct)
	if err != nil {
		return fmt.Errorf("database.listen_url: %w", err)
	}
	if !same {
		return &failure{code: exitUsage, err: errors.New("database.listen_url leads to another database than database.url"),
			hint: "inserts would wake nobody: name the same server and database in both"}
	}
	return nil
}

// sameDatabase: a lock that one takes is seen by the other.
func sameDatabase(ctx context.Context, one, other *pgx.Conn) (same bool, err error) {
	tx, err := one.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("compare databases: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	first, second := rand.Int32(), rand.Int32()
	if _, err := tx.Exec(ctx, sqlMark, first, second); err != nil {
		return false, fmt.Errorf("compare databases: %w", err)
	}
	if err := other.QueryRow(ctx, sqlMarked, first, second).Scan(&same); err != nil {
		return false, fmt.Errorf("compare databases: %w", err)
	}
	return same, nil
}

func (a *app) printChecked(settings *config.Config, reached, asJSON bool) error {
	if asJSON {
		return writeJSON(a.stdout, map[string]any{"ok": true, "file": settings.Path, "handlers": len(settings.Handlers), "connected": reached})
	}
	where := settings.Path
	if where == "" {
		where = "no file"
	}
	note := ""
	if reached {
		note = ", and so is the database"
	}
	_, err := fmt.Fprintf(a.stdout, "the configuration (%s, %d handlers) is in order%s\n", printable(where), len(settings.Handlers), note)
	return err
}

func (a *app) newConfigPrintCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration, and where each value comes from",
		Long:  "Prints the effective configuration, and where each value comes from. Secrets and passwords are shown as ***.",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			settings, err := a.load(command, false)
			if err != nil {
				return err
			}
			list := settings.Settings()
			if !asJSON {
				_, err := fmt.Fprint(a.stdout, config.Format(list))
				return err
			}
			values := map[string]any{}
			for _, setting := range list {
				values[setting.Key()] = map[string]any{"value": setting.Value, "source": setting.Origin.Source.String(), "where": setting.Origin.Where}
			}
			return writeJSON(a.stdout, values)
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}
