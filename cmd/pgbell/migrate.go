package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/migrations"
)

func (a *app) newMigrateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "migrate",
		Short: "Bring pgbell's tables and functions into a database, or out of it",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.newMigrateUpCommand(), a.newMigrateDownCommand(), a.newMigrateStatusCommand(), a.newMigratePrintCommand())
	return command
}

// migration runs work with a connection and what package migrations needs to know.
func (a *app) migration(command *cobra.Command, work func(*pgx.Conn, migrations.Config) error) error {
	settings, err := a.loadDatabase(command)
	if err != nil {
		return err
	}
	logger, err := a.newLogger(settings.Log)
	if err != nil {
		return err
	}
	conn, err := a.connect(command.Context(), settings)
	if err != nil {
		return err
	}
	defer closeConn(command.Context(), conn)
	if err := work(conn, migrations.Config{Schema: settings.Database.Schema, Logger: logger}); err != nil {
		return diagnoseMigration(conn, err)
	}
	return nil
}

func diagnoseMigration(conn *pgx.Conn, err error) error {
	var clash *migrations.ClashError
	var blocked *migrations.BlockedError
	var refused *migrations.RefusedError
	switch {
	case errors.As(err, &clash):
		return &failure{code: exitSchema, err: err}
	case errors.As(err, &blocked):
		return &failure{code: exitFailure, err: err}
	case errors.As(err, &refused):
		return &failure{code: exitFailure, err: err, hint: "--force goes on all the same"}
	}
	var privilege *migrations.PrivilegeError
	var schema *migrations.SchemaError
	var changed *migrations.ChangedError
	if errors.As(err, &privilege) || errors.As(err, &schema) || errors.As(err, &changed) {
		return err
	}
	return statementFailed(conn, "migrate", err)
}

func (a *app) newMigrateUpCommand() *cobra.Command {
	var asJSON bool
	var wait time.Duration
	command := &cobra.Command{
		Use:   "up",
		Short: "Bring the schema to this program's version",
		Long: `Brings the schema to this program's version. It does nothing where that is done already, and may be run by any
number of processes at once. An existing jobs table with the columns of the contract is adopted with its rows.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.migration(command, func(conn *pgx.Conn, config migrations.Config) error {
				config.Wait = wait
				if err := migrations.Up(command.Context(), conn, config); err != nil {
					return err
				}
				return a.printStatus(command, conn, config, asJSON)
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	durationFlag(command, &wait, "wait", time.Minute, "how long to wait for locks that others hold")
	return command
}

func (a *app) newMigrateDownCommand() *cobra.Command {
	var asJSON bool
	var options migrations.DownOptions
	command := &cobra.Command{
		Use:   "down",
		Short: "Take migrations back: the newest, or down to a version",
		Long: `Takes the newest migration back, or all above --to. Version 0 takes pgbell out of the schema, with all jobs; a
jobs table that was there before pgbell stays. It refuses while sidecars run or unfinished jobs would be lost.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if command.Flags().Changed("to") && options.To < 0 {
				return &failure{code: exitUsage, err: errors.New("--to: a version is 0 or more")}
			}
			return a.migration(command, func(conn *pgx.Conn, config migrations.Config) error {
				if err := migrations.Down(command.Context(), conn, config, options); err != nil {
					return err
				}
				return a.printStatus(command, conn, config, asJSON)
			})
		},
	}
	command.Flags().IntVar(&options.To, "to", -1, "`version` to go down to; 0 takes pgbell out")
	command.Flags().BoolVar(&options.Force, "force", false, "go on where sidecars run or unfinished jobs are lost")
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	command.Flags().Lookup("to").DefValue = ""
	return command
}

func (a *app) newMigrateStatusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Say which migrations are applied; exit 4 if the schema is not current",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.migration(command, func(conn *pgx.Conn, config migrations.Config) error {
				if err := a.printStatus(command, conn, config, asJSON); err != nil {
					return err
				}
				return migrations.Check(command.Context(), conn, config.Schema)
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func (a *app) printStatus(command *cobra.Command, conn *pgx.Conn, config migrations.Config, asJSON bool) error {
	report, err := migrations.Status(command.Context(), conn, config)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, report)
	}
	state := "current"
	switch {
	case report.Installed == 0:
		state = "not installed"
	case !report.Current:
		state = "not current"
	}
	if _, err := fmt.Fprintf(a.stdout, "schema %s: %s (version %d of %d)\n", printable(report.Schema), state, report.Installed, report.Want); err != nil {
		return err
	}
	rows := [][]string{{"VERSION", "NAME", "STATE", "APPLIED AT"}}
	for _, entry := range report.Migrations {
		rows = append(rows, []string{strconv.Itoa(entry.Version), entry.Name, string(entry.State), timeText(entry.AppliedAt)})
	}
	return writeTable(a.stdout, rows)
}

func (a *app) newMigratePrintCommand() *cobra.Command {
	var dir string
	var from int
	command := &cobra.Command{
		Use:   "print",
		Short: "Print the migrations as plain SQL, for psql or another tool",
		Long: `Prints the migrations as plain SQL, one transaction each, for psql: pgbell migrate print | psql "$DATABASE_URL".
With --dir it writes one file per migration into the folder of another tool, such as supabase/migrations. After either,
pgbell sees itself as migrated. It needs no database.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			settings, err := a.loadDatabase(command)
			if err != nil {
				return err
			}
			return a.printMigrations(settings, dir, from)
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "`folder` to write one file per migration to")
	command.Flags().IntVar(&from, "from", 0, "leave out the migrations up to this `version`")
	return command
}

func (a *app) printMigrations(settings *config.Config, dir string, from int) error {
	if from < 0 || from > migrations.Version {
		return &failure{code: exitUsage, err: fmt.Errorf("--from: %d is not between 0 and %d", from, migrations.Version)}
	}
	installation := migrations.Config{Schema: settings.Database.Schema}
	if dir == "" {
		return migrations.Print(a.stdout, installation, from)
	}
	paths, err := migrations.PrintDir(dir, installation, from)
	if err != nil {
		return err
	}
	for _, path := range paths {
		if _, err := fmt.Fprintln(a.stdout, printable(path)); err != nil {
			return err
		}
	}
	return nil
}
