package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
)

// row of a job, as jobs ls shows it.
type row struct {
	ID                string     `json:"id"`
	Type              string     `json:"type"`
	Status            string     `json:"status"`
	Priority          int        `json:"priority"`
	Attempts          int        `json:"attempts"`
	MaxAttempts       int        `json:"max_attempts"`
	Error             *string    `json:"error"`
	CreatedAt         time.Time  `json:"created_at"`
	UpdatedAt         time.Time  `json:"updated_at"`
	ScheduledFor      time.Time  `json:"scheduled_for"`
	StartedAt         *time.Time `json:"started_at"`
	CompletedAt       *time.Time `json:"completed_at"`
	WorkerID          *int       `json:"worker_id"`
	UniqueKey         *string    `json:"unique_key"`
	Crashes           int        `json:"crashes"`
	CancelRequestedAt *time.Time `json:"cancel_requested_at"`
}

func (r *row) targets() []any {
	return []any{&r.ID, &r.Type, &r.Status, &r.Priority, &r.Attempts, &r.MaxAttempts, &r.Error, &r.CreatedAt, &r.UpdatedAt,
		&r.ScheduledFor, &r.StartedAt, &r.CompletedAt, &r.WorkerID, &r.UniqueKey, &r.Crashes, &r.CancelRequestedAt}
}

// detail is what jobs show adds.
type detail struct {
	row
	Payload   json.RawMessage `json:"payload"`
	Result    json.RawMessage `json:"result"`
	Metadata  json.RawMessage `json:"metadata"`
	Timeout   *string         `json:"timeout"`
	HeldUntil *time.Time      `json:"held_until"`
	Errors    []attemptError  `json:"errors"`
}

// attemptError is a failed attempt.
type attemptError struct {
	Attempt   int        `json:"attempt"`
	Error     string     `json:"error"`
	WorkerID  *int       `json:"worker_id"`
	StartedAt *time.Time `json:"started_at"`
	FailedAt  time.Time  `json:"failed_at"`
}

const maxListed = 10_000

func statuses() []string {
	return []string{"pending", "processing", "completed", "failed", "cancelled"}
}

func (a *app) newJobsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "jobs",
		Short: "List, show, retry and cancel jobs",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.newJobsListCommand(), a.newJobsShowCommand(),
		a.newJobsChangeCommand("retry", "Run finished jobs again, or pending ones now, with all their attempts", sqlRetry),
		a.newJobsChangeCommand("cancel", "Cancel pending jobs, and ask running ones to stop", sqlCancel))
	return command
}

func (a *app) newJobsListCommand() *cobra.Command {
	var types, wanted []string
	var limit int
	var asJSON bool
	command := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List jobs, the newest first",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			for _, status := range wanted {
				if !slices.Contains(statuses(), status) {
					return &failure{code: exitUsage, err: fmt.Errorf("--status: %q is not one of %s", status, strings.Join(statuses(), ", "))}
				}
			}
			if limit < 1 || limit > maxListed {
				return &failure{code: exitUsage, err: fmt.Errorf("--limit: %d is not between 1 and %d", limit, maxListed)}
			}
			settings, err := a.loadDatabase(command)
			if err != nil {
				return err
			}
			return a.withConn(command.Context(), settings, func(conn *pgx.Conn) error {
				rows, err := conn.Query(command.Context(), inSchema(sqlJobs, settings), types, wanted, limit)
				if err != nil {
					return statementFailed(conn, "list jobs", err)
				}
				list, err := pgx.CollectRows(rows, func(from pgx.CollectableRow) (row, error) {
					var job row
					return job, from.Scan(job.targets()...)
				})
				if err != nil {
					return statementFailed(conn, "list jobs", err)
				}
				return a.printJobs(list, asJSON)
			})
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&types, "type", nil, "only jobs of this `type`; may be given several times")
	flags.StringSliceVar(&wanted, "status", nil, "only jobs of this `status`; may be given several times")
	flags.IntVar(&limit, "limit", 20, "at most that many")
	flags.BoolVar(&asJSON, "json", false, "print a JSON array")
	return command
}

func (a *app) printJobs(list []row, asJSON bool) error {
	if asJSON {
		if list == nil {
			list = []row{}
		}
		return writeJSON(a.stdout, list)
	}
	rows := [][]string{{"ID", "TYPE", "STATUS", "PRIO", "ATTEMPTS", "CREATED", "SCHEDULED FOR", "ERROR"}}
	for _, job := range list {
		note := ""
		if job.Error != nil {
			note = shorten(*job.Error, 60)
		}
		rows = append(rows, []string{job.ID, shorten(job.Type, 40), job.Status, strconv.Itoa(job.Priority),
			fmt.Sprintf("%d/%d", job.Attempts, job.MaxAttempts), timeText(&job.CreatedAt), timeText(&job.ScheduledFor), note})
	}
	return writeTable(a.stdout, rows)
}

func (a *app) newJobsShowCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "show ID",
		Short: "Show a job with its payload and its failed attempts",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := checkIDs(args); err != nil {
				return err
			}
			settings, err := a.loadDatabase(command)
			if err != nil {
				return err
			}
			return a.withConn(command.Context(), settings, func(conn *pgx.Conn) error {
				job, err := readJob(command, conn, settings, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.stdout, job)
				}
				return a.printJob(job)
			})
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

func readJob(command *cobra.Command, conn *pgx.Conn, settings *config.Config, id string) (*detail, error) {
	job := &detail{}
	targets := append(job.targets(), &job.Payload, &job.Result, &job.Metadata, &job.Timeout, &job.HeldUntil)
	err := conn.QueryRow(command.Context(), inSchema(sqlJob, settings), id).Scan(targets...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, &failure{code: exitFailure, err: fmt.Errorf("there is no job %s", id)}
	}
	if err != nil {
		return nil, statementFailed(conn, "show job", err)
	}
	rows, err := conn.Query(command.Context(), inSchema(sqlJobErrors, settings), id)
	if err != nil {
		return nil, statementFailed(conn, "read the job's errors", err)
	}
	job.Errors, err = pgx.CollectRows(rows, pgx.RowToStructByPos[attemptError])
	if err != nil {
		return nil, statementFailed(conn, "read the job's errors", err)
	}
	return job, nil
}

func (a *app) printJob(job *detail) error {
	pairs := [][]string{
		{"id", job.ID}, {"type", job.Type}, {"status", job.Status}, {"priority", strconv.Itoa(job.Priority)},
		{"attempts", fmt.Sprintf("%d of %d", job.Attempts, job.MaxAttempts)},
		{"created", timeText(&job.CreatedAt)}, {"scheduled for", timeText(&job.ScheduledFor)},
	}
	optional := func(name, value string) {
		if value != "" {
			pairs = append(pairs, []string{name, value})
		}
	}
	optional("started", timeText(job.StartedAt))
	optional("completed", timeText(job.CompletedAt))
	optional("held until", timeText(job.HeldUntil))
	optional("cancel asked for", timeText(job.CancelRequestedAt))
	if job.WorkerID != nil {
		optional("worker", strconv.Itoa(*job.WorkerID))
	}
	if job.Crashes > 0 {
		optional("crashes", strconv.Itoa(job.Crashes))
	}
	optional("unique key", orEmpty(job.UniqueKey))
	optional("timeout", orEmpty(job.Timeout))
	optional("payload", string(job.Payload))
	optional("result", string(job.Result))
	optional("metadata", string(job.Metadata))
	optional("error", orEmpty(job.Error))
	for i, failed := range job.Errors {
		name := ""
		if i == 0 {
			name = "failed attempts"
		}
		pairs = append(pairs, []string{name, fmt.Sprintf("%s  attempt %d: %s", timeText(&failed.FailedAt), failed.Attempt, failed.Error)})
	}
	return writeTable(a.stdout, pairs)
}

// timeText is in the time of the place where the command runs, with its offset.
func timeText(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.Local().Format("2006-01-02 15:04:05.000 -07:00")
}

func orEmpty(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
