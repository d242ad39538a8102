package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
)

// change is what became of one job.
type change struct {
	ID     string `json:"id"`
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

// newJobsChangeCommand makes a command that does something to each of several jobs. Statement takes an id and returns
// the job's new status as its second column.
func (a *app) newJobsChangeCommand(verb, short, statement string) *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   verb + " ID...",
		Short: short,
		Long:  short + ".\n\nPrints each id with the status that the job has then. Jobs where it isn't possible are told; the exit code is 1 then.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, ids []string) error {
			if err := checkIDs(ids); err != nil {
				return err
			}
			settings, err := a.loadDatabase(command)
			if err != nil {
				return err
			}
			return a.withConn(command.Context(), settings, func(conn *pgx.Conn) error {
				changes, err := changeJobs(command.Context(), conn, settings, verb, statement, ids)
				if err != nil {
					return err
				}
				return a.printChanges(verb, changes, asJSON)
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return command
}

func changeJobs(ctx context.Context, conn *pgx.Conn, settings *config.Config, verb, statement string, ids []string) ([]change, error) {
	var changes []change
	for _, id := range ids {
		var status string
		err := conn.QueryRow(ctx, inSchema(statement, settings), id).Scan(nil, &status)
		var answer *pgconn.PgError
		switch {
		case err == nil:
			changes = append(changes, change{ID: id, Status: status})
		case errors.As(err, &answer) && isAboutJob(answer.Code):
			message := answer.Message
			if answer.Hint != "" {
				message += " (" + answer.Hint + ")"
			}
			changes = append(changes, change{ID: id, Error: message})
		default:
			return nil, statementFailed(conn, verb+" job "+id, err)
		}
	}
	return changes, nil
}

// isAboutJob: no such job, not in that status, its unique key is taken. Others are about the database, and end the command.
func isAboutJob(code string) bool { return code == "P0002" || code == "55000" || code == "23505" }

func (a *app) printChanges(verb string, changes []change, asJSON bool) error {
	refused := 0
	for _, each := range changes {
		if each.Error != "" {
			refused++
		}
	}
	if asJSON {
		if err := writeJSON(a.stdout, changes); err != nil {
			return err
		}
	} else {
		for _, each := range changes {
			if each.Error != "" {
				printError(a.stderr, each.Error, "", "")
				continue
			}
			if _, err := fmt.Fprintf(a.stdout, "%s %s\n", each.ID, each.Status); err != nil {
				return err
			}
		}
	}
	if refused > 0 {
		return fmt.Errorf("%s: %d of %d jobs were left as they are", verb, refused, len(changes))
	}
	return nil
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$`)

func checkIDs(ids []string) error {
	for _, id := range ids {
		if !uuid.MatchString(id) {
			return &failure{code: exitUsage, err: fmt.Errorf("%q is not a job's id", shorten(id, 60)),
				hint: "an id looks like 0198a5c4-7e1b-4c7a-9d62-3f1e5b6a7c8d; pgbell jobs ls lists them"}
		}
	}
	return nil
}
