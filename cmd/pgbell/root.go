package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
)

// app is what the commands share: where they read and write, and the flags that all of them have.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string

	configPath, databaseURL, schema, logLevel string

	// started: the command line was understood, so that what goes wrong from here on is no error of usage.
	started bool
}

// execute runs the command that args name and returns the exit code.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	root := a.newRootCommand()
	root.SetArgs(args)
	// No signal is caught here: a command ends of it, and the server rolls back what it had begun.
	command, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = &failure{code: exitUsage, err: err, hint: fmt.Sprintf("run %q", command.CommandPath()+" --help")}
	}
	return report(stderr, err)
}

func (a *app) newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgbell",
		Short: "Run background jobs out of a Postgres table",
		Long: `pgbell is a sidecar that runs background jobs out of a Postgres table. An application inserts a row with plain
SQL; pgbell runs it by an HTTP request, a child process or a SQL function.

Results go to standard output, logs and errors to standard error. "pgbell help exit-codes" lists the exit codes,
"pgbell help environment" the variables.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "configuration `file` (default: PGBELL_CONFIG, else ./pgbell.yaml if it exists)")
	flags.StringVar(&a.databaseURL, "database-url", "", "database `URL`; other users of the machine can see it: rather set DATABASE_URL")
	flags.StringVar(&a.schema, "schema", "", "`schema` that pgbell is installed in (default: public)")
	flags.StringVar(&a.logLevel, "log-level", "", "`level` of the log: trace, debug, info, warn or error (default: info)")
	root.AddCommand(a.newRunCommand(), a.newMigrateCommand(), a.newEnqueueCommand(), a.newJobsCommand(), a.newConfigCommand(),
		a.newDemoCommand(), a.newVersionCommand(), newExitCodesTopic(), newEnvironmentTopic())
	return root
}

// load reads the configuration for a command. Commands that run no jobs say databaseOnly.
func (a *app) load(command *cobra.Command, databaseOnly bool) (*config.Config, error) {
	var given []config.Flag
	for _, flag := range []config.Flag{
		{Name: "--database-url", Key: "database.url", Value: a.databaseURL},
		{Name: "--schema", Key: "database.schema", Value: a.schema},
		{Name: "--log-level", Key: "log.level", Value: a.logLevel},
	} {
		if command.Flags().Changed(flag.Name[2:]) {
			given = append(given, flag)
		}
	}
	loaded, err := config.Load(config.Options{Path: a.configPath, Environ: a.environ, Flags: given, DatabaseOnly: databaseOnly})
	if err != nil {
		return loaded, &failure{code: exitUsage, err: err}
	}
	return loaded, nil
}

// loadDatabase reads the configuration for a command that works on the database alone, and tells its warnings.
func (a *app) loadDatabase(command *cobra.Command) (*config.Config, error) {
	loaded, err := a.load(command, true)
	if err != nil {
		return nil, err
	}
	for _, warning := range loaded.Warnings {
		fmt.Fprintf(a.stderr, "warning: %s\n", printable(warning))
	}
	return loaded, nil
}
