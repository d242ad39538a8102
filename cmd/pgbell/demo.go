package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/internal/demo"
	"github.com/pgbell/pgbell/internal/postgres"
)

const demoHelp = `demo starts a Postgres of its own in a temporary folder, installs pgbell in it, and runs a small application with
a handler of each kind (webhook, subprocess, SQL function, Go) and a stream of jobs that are inserted by plain SQL:
with priorities and delays, some that fail and are retried, some that never succeed, duplicates that unique_key refuses,
transactions that are rolled back. It shows what goes on, and the psql command that inserts a job of your own. Ctrl-C
ends it and removes everything.

At the end each job is compared with what it should have come to: status, attempts, errors, result and effects. The exit
code is 0 only if all is as it should be.

Pickup is the time from the commit of an insert, which is when its reply reaches the inserting connection, to the start of
the handler, for jobs that are due at once, on their first attempt. For a webhook the handler starts when the request
has reached the application, for a subprocess when its first line has run, for a Go function when it is entered, and for a
SQL function when the dispatcher hands the job over, one statement before the function itself starts.

With --json, one object is printed at the end: ok, inserted, completed, failed, unfinished, retried (attempts after a
job's first), refused (by unique_key), rolled_back, others (run, but not inserted by the demo), p50, p95 and p99 (pickup
in milliseconds; pickup_ms has them too, with max and count), types (counts and pickup_ms by type), verified, unexpected
(what is not as it should be) and unexpected_count, first_completed_s (from the start), duration_s, postgres, interrupted.`

// newDemoCommand shows pgbell at work.
func (a *app) newDemoCommand() *cobra.Command {
	var settings demo.Config
	var asJSON bool
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show pgbell at work, with a Postgres of its own",
		Long:  demoHelp,
		Example: `  pgbell demo
  pgbell demo --for 10s --json
  pgbell demo --database-url postgres://me@127.0.0.1/test   # in a schema of its own, which is dropped at the end`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			// The environment's DATABASE_URL is an application's: only a flag can mean a demo.
			settings.DatabaseURL, settings.Schema = a.databaseURL, a.schema
			return a.demo(command.Context(), settings, asJSON)
		},
	}
	flags := command.Flags()
	flags.DurationVar(&settings.For, "for", 0, "how `long` to run, at least 1s (default: until Ctrl-C)")
	flags.Float64Var(&settings.Rate, "rate", 50, "rows inserted a second, 0.1 to 10000")
	flags.BoolVar(&asJSON, "json", false, "print nothing but one JSON object at the end")
	return command
}

func (a *app) demo(parent context.Context, settings demo.Config, asJSON bool) error {
	ctx, signals := watchDemoSignals(parent)
	defer signals.stop()
	settings.Abort = signals.abort
	if err := a.demoView(&settings, asJSON); err != nil {
		return err
	}
	// When the server is killed, what the sidecar has to say of it is no news.
	settings.Logger = settings.Logger.Hook(zerolog.HookFunc(func(event *zerolog.Event, _ zerolog.Level, _ string) {
		select {
		case <-signals.abort:
			event.Discard()
		default:
		}
	}))
	summary, err := demo.Run(ctx, settings)
	if errors.Is(err, demo.ErrAborted) {
		return &failure{code: exitSignal + int(<-signals.second), err: fmt.Errorf("ended before it had stopped in order: %w", err)}
	}
	if errors.Is(err, postgres.ErrNotFound) {
		return &failure{code: exitDatabase, err: err, hint: "or let it use a database that you have: pgbell demo --database-url URL"}
	}
	if mistake := (*demo.ConfigError)(nil); errors.As(err, &mistake) {
		return &failure{code: exitUsage, err: err, hint: `run "pgbell demo --help"`}
	}
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(a.stdout, summary)
	} else {
		_, err = fmt.Fprint(a.stdout, "\n"+summary.Text())
	}
	if err == nil && !summary.OK {
		err = &failure{code: exitFailure, err: errors.New(whatWentWrong(summary))}
	}
	return err
}

func whatWentWrong(summary demo.Summary) string {
	switch {
	case summary.UnexpectedCount > 0:
		return fmt.Sprintf("not all is as it should be: %d things were unexpected", summary.UnexpectedCount)
	case summary.Interrupted:
		return "interrupted before its time"
	}
	return fmt.Sprintf("%d of %d jobs have not ended", summary.Unfinished, summary.Inserted)
}

// demoView chooses how the demo is shown, and where its log goes: above the live view, which it would tear otherwise.
func (a *app) demoView(settings *demo.Config, asJSON bool) error {
	level := a.logLevel
	if level == "" {
		level = "warn"
	}
	logger, err := a.newLogger(config.Log{Level: level, Format: "auto"})
	if err != nil {
		return &failure{code: exitUsage, err: err, hint: "use trace, debug, info, warn or error"}
	}
	settings.Logger = logger
	file, isFile := a.stdout.(*os.File)
	switch {
	case asJSON:
	case isFile && term.IsTerminal(int(file.Fd())) && a.variable("TERM") != "dumb":
		screen := demo.NewScreen(file, func() (width, height int) {
			width, height, err := term.GetSize(int(file.Fd()))
			if err != nil || width < 1 || height < 1 {
				return 80, 24
			}
			return width, height
		}, a.variable("NO_COLOR") == "")
		settings.View = screen
		settings.Logger = logger.Output(zerolog.ConsoleWriter{
			Out: screen, TimeFormat: time.TimeOnly, NoColor: a.variable("NO_COLOR") != "",
			FormatMessage: func(message any) string {
				text, _ := message.(string)
				return printable(text)
			},
		})
	default:
		settings.View = demo.NewLines(a.stdout)
	}
	return nil
}

// variable of the environment.
func (a *app) variable(name string) string {
	value := ""
	for _, entry := range a.environ {
		if key, text, _ := strings.Cut(entry, "="); key == name {
			value = text
		}
	}
	return value
}

// demoSignals ends a demo in order at the first SIGINT or SIGTERM, and at once, but without leaving its server behind, at
// the second. A third ends the process whatever is left.
type demoSignals struct {
	abort  chan struct{}
	second chan syscall.Signal
	stop   func()
}

func watchDemoSignals(parent context.Context) (context.Context, *demoSignals) {
	ctx, cancel := context.WithCancel(parent)
	s := &demoSignals{abort: make(chan struct{}), second: make(chan syscall.Signal, 1)}
	// Whoever else listens in this process would exit at the second one.
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	got := make(chan os.Signal, 3)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	ended, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		for count := 1; ; count++ {
			select {
			case <-ended:
				return
			case received := <-got:
				number, _ := received.(syscall.Signal)
				switch count {
				case 1:
					cancel()
				case 2:
					s.second <- number
					close(s.abort)
				default:
					os.Exit(exitSignal + int(number))
				}
			}
		}
	}()
	s.stop = func() {
		signal.Stop(got)
		close(ended)
		<-left
		cancel()
	}
	return ctx, s
}
