package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
)

const (
	maxInput = 64 << 20
	maxCount = 1_000_000
)

// order is what enqueue was told.
type order struct {
	kind, payload         string
	priority, maxAttempts int
	delay, timeout        time.Duration
	uniqueKey, metadata   string
	count                 int
}

func (a *app) newEnqueueCommand() *cobra.Command {
	var order order
	var asJSON bool
	command := &cobra.Command{
		Use:   "enqueue TYPE [PAYLOAD|-]",
		Short: "Insert a job and print its id",
		Long: `Inserts a job and prints its id. PAYLOAD is JSON, {} if left out; with - it is read from standard input.
With --unique-key, the id of the pending or processing job that has the key already is printed instead.`,
		Example: `  pgbell enqueue send_email '{"to":"a@b.c"}'
  pgbell enqueue resize - --delay 10m --priority 5 < job.json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(command *cobra.Command, args []string) error {
			order.kind, order.payload = args[0], "{}"
			if len(args) == 2 {
				order.payload = args[1]
			}
			if err := order.complete(a.stdin); err != nil {
				return &failure{code: exitUsage, err: err}
			}
			settings, err := a.loadDatabase(command)
			if err != nil {
				return err
			}
			return a.withConn(command.Context(), settings, func(conn *pgx.Conn) error {
				return a.enqueue(command, conn, settings, order, asJSON)
			})
		},
	}
	flags := command.Flags()
	flags.IntVar(&order.priority, "priority", 0, "jobs with a higher `number` run first")
	flags.IntVar(&order.maxAttempts, "max-attempts", 3, "how often to try")
	flags.StringVar(&order.uniqueKey, "unique-key", "", "at most one pending or processing job has this `key`, by type")
	flags.StringVar(&order.metadata, "metadata", "", "metadata, as a JSON `object`")
	flags.IntVar(&order.count, "count", 1, "insert that many equal jobs, in one transaction")
	durationFlag(command, &order.delay, "delay", 0, "run it that much later")
	durationFlag(command, &order.timeout, "timeout", 0, "limit of each attempt (default: the type's)")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return command
}

// complete reads the payload, where it comes from stdin, and says what can't be right.
func (o *order) complete(stdin io.Reader) error {
	if o.payload == "-" {
		text, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
		if err != nil {
			return fmt.Errorf("read payload: %w", err)
		}
		if len(text) > maxInput {
			return errors.New("payload: bigger than 64 MiB")
		}
		o.payload = string(text)
	}
	var mistakes []error
	if n := utf8.RuneCountInString(o.kind); n < 1 || n > 200 || !utf8.ValidString(o.kind) {
		mistakes = append(mistakes, fmt.Errorf("TYPE: has 1 to 200 characters, not %d", n))
	}
	if !json.Valid([]byte(o.payload)) {
		mistakes = append(mistakes, errors.New("PAYLOAD: is not JSON; text is put in double quotes, and the whole in single ones for the shell"))
	}
	if o.metadata != "" && !json.Valid([]byte(o.metadata)) {
		mistakes = append(mistakes, errors.New("--metadata: is not JSON"))
	}
	if o.maxAttempts < 1 {
		mistakes = append(mistakes, errors.New("--max-attempts: must be at least 1"))
	}
	if o.count < 1 || o.count > maxCount {
		mistakes = append(mistakes, fmt.Errorf("--count: must be between 1 and %d", maxCount))
	}
	if o.uniqueKey != "" && o.count != 1 {
		mistakes = append(mistakes, errors.New("--count: jobs with one --unique-key are one job"))
	}
	return errors.Join(mistakes...)
}

func (a *app) enqueue(command *cobra.Command, conn *pgx.Conn, settings *config.Config, order order, asJSON bool) error {
	rows, err := conn.Query(command.Context(), inSchema(sqlEnqueue, settings), order.kind, order.payload, order.priority,
		order.delay, order.maxAttempts, orNull(order.uniqueKey), durationOrNull(order.timeout), orNull(order.metadata), order.count)
	if err != nil {
		return statementFailed(conn, "enqueue job", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return statementFailed(conn, "enqueue job", err)
	}
	if asJSON {
		return writeJSON(a.stdout, map[string]any{"ids": ids})
	}
	_, err = fmt.Fprintln(a.stdout, strings.Join(ids, "\n"))
	return err
}

// inSchema puts the schema's quoted name into a statement.
func inSchema(statement string, settings *config.Config) string {
	return strings.ReplaceAll(statement, "{schema}", pgx.Identifier{settings.Database.Schema}.Sanitize())
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func durationOrNull(d time.Duration) *time.Duration {
	if d == 0 {
		return nil
	}
	return &d
}
