package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/migrations"
)

// Exit codes, for scripts: they don't change.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitDatabase = 3
	exitSchema   = 4
	exitSignal   = 128
)

func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "The exit codes of all commands",
		Long: `Exit codes:

  0    all is well; run: it was told to stop, and has stopped in order
  1    what was asked for could not be done: no such job, a port in use, a job that did not end in time
  2    the command line or the configuration is wrong; nothing was done
  3    the database can't be reached, or refuses: wrong password, no such database, not enough rights, read-only
  4    pgbell is not installed in the schema, or in a version that this program can't work with; "pgbell migrate" mends it
  130  SIGINT ended the command; of run and demo, a second SIGINT, before they had stopped in order
  143  SIGTERM did; of run and demo, a second one`,
	}
}

func newEnvironmentTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "The environment variables",
		Long: `Environment variables, which win over the configuration file and lose against flags:

` + strings.Join(config.Variables(), "\n") + `

DATABASE_URL, PGBELL_LISTEN_URL and PGBELL_SCHEMA stand for the ones of their keys. The URLs can be kept in a file: a variable
with _FILE at the end of its name, such as DATABASE_URL_FILE, names it. Without a URL, the PG* variables of libpq hold.
PGBELL_CONFIG names the configuration file. NO_COLOR turns colours off. An empty variable counts as unset.`,
	}
}

// failure is an error that knows its exit code, and may know how to mend it.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// report tells an error to a person and returns the exit code.
func report(w io.Writer, err error) int {
	found := diagnose(err)
	var mistakes config.Mistakes
	if errors.As(err, &mistakes) {
		for _, mistake := range mistakes {
			printError(w, mistake.Error(), mistake.Snippet, mistake.Hint)
		}
		return found.code
	}
	printError(w, found.err.Error(), "", found.hint)
	return found.code
}

func printError(w io.Writer, message, snippet, hint string) {
	fmt.Fprintf(w, "error: %s\n", printableLines(message))
	if snippet != "" {
		fmt.Fprintln(w, escaped(snippet, true))
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printableLines(hint))
	}
}

// diagnose finds the exit code of an error, and what a person can do about it.
func diagnose(err error) *failure {
	var known *failure
	if errors.As(err, &known) {
		return known
	}
	var schema *migrations.SchemaError
	var changed *migrations.ChangedError
	var privilege *migrations.PrivilegeError
	switch {
	case errors.As(err, &schema):
		if message, ok := strings.CutSuffix(err.Error(), ": run "+schema.Command); ok {
			return &failure{code: exitSchema, err: errors.New(message), hint: fmt.Sprintf("run %q", schema.Command)}
		}
		return &failure{code: exitSchema, err: err}
	case errors.As(err, &changed):
		return &failure{code: exitSchema, err: err}
	case errors.As(err, &privilege):
		if message, ok := strings.CutSuffix(err.Error(), ": "+privilege.Grant); ok {
			return &failure{code: exitDatabase, err: errors.New(message), hint: "an administrator mends it: " + privilege.Grant}
		}
		return &failure{code: exitDatabase, err: err}
	}
	return diagnoseDatabase(err)
}
