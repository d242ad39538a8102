package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/listener"
	"github.com/pgbell/pgbell/migrations"
)

func (a *app) newRunCommand() *cobra.Command {
	var migrate bool
	command := &cobra.Command{
		Use:   "run",
		Short: "Run jobs until SIGINT or SIGTERM",
		Long: `Runs jobs until SIGINT or SIGTERM. Then it claims no more, lets running jobs end within shutdown_grace, gives the rest
back, and exits. A second signal ends it at once; the jobs that it held run again elsewhere.

While the database can't be reached it waits, and says what for. It serves /healthz, /readyz and /metrics on http.addr.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			settings, err := a.load(command, false)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(command.Context(), os.Exit)
			defer stop()
			return a.run(ctx, settings, migrate)
		},
	}
	command.Flags().BoolVar(&migrate, "migrate", false, "migrate up first")
	return command
}

// run makes all parts, then runs them. Nothing connects before the configuration is known to be right.
func (a *app) run(ctx context.Context, settings *config.Config, migrate bool) error {
	logger, err := a.newLogger(settings.Log)
	if err != nil {
		return &failure{code: exitUsage, err: err}
	}
	for _, warning := range settings.Warnings {
		logger.Warn().Str("warning", warning).Msg("odd configuration")
	}
	var pooled atomic.Bool // known before the pools connect
	bell, err := a.newListener(settings, logger)
	if err != nil {
		return err
	}
	made, err := a.newPools(settings, &pooled, func() bool { return isCrowdedOut(bell) })
	if err != nil {
		return err
	}
	defer made.close()
	made.warn(settings, logger)
	guard, err := subprocess.NewGuard(subprocess.GuardConfig{Logger: logger})
	if err != nil {
		return err
	}
	built, err := buildHandlers(settings, made.functions, guard)
	if err != nil {
		return err
	}
	defer built.close()
	dispatcher, err := dispatch.New(made.work, dispatchConfig(settings, built, bell, logger))
	if err != nil {
		return &failure{code: exitUsage, err: err}
	}
	health := newHealth(made.probes, dispatcher, bell)
	server, err := newServer(ctx, settings, logger, health, newRegistry(settings, made, dispatcher, bell))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		health.stopping.Store(true)
		logger.Info().Str("grace", config.FormatDuration(settings.ShutdownGrace)).Msg("pgbell is stopping: a second signal ends it at once")
	})()
	logger.Info().Str("version", version).Str("config", settings.Path).Int("handlers", len(built.types)).
		Str("database", databaseName(made.work)).Msg("pgbell starts")

	start := func(ctx context.Context) error {
		if err := a.awaitDatabase(ctx, settings, logger, migrate, &pooled); err != nil {
			return err
		}
		if pooled.Load() {
			// A scrape may have connected before it was known.
			made.probes.Reset()
		}
		// Each is needed by those before it until they have ended.
		return runGroup(ctx, actor{"dispatcher", func(ctx context.Context) error {
			listenFirst(ctx, bell)
			return dispatcher.Run(ctx)
		}}, actor{"listener", bell.Run}, actor{"guard", guardRun(settings, guard)})
	}
	err = runGroup(ctx, actor{"", start}, actor{"http server", server.run})
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		logger.Info().Msg("pgbell has stopped")
	}
	return err
}

// guardRun: without subprocesses there is nobody to guard, and no second process.
func guardRun(settings *config.Config, guard *subprocess.Guard) func(context.Context) error {
	for _, each := range settings.Handlers {
		if each.Subprocess != nil {
			return guard.Run
		}
	}
	return func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}
}

func (a *app) newListener(settings *config.Config, logger zerolog.Logger) (*listener.Listener, error) {
	url := settings.Database.ListenURL
	if url == "" {
		url = settings.Database.URL
	}
	conn, err := a.connConfig(settings, url, "pgbell")
	if err != nil {
		return nil, err
	}
	made, err := listener.New(listener.Config{ConnConfig: conn, Schema: settings.Database.Schema, Logger: logger})
	if err != nil {
		return nil, &failure{code: exitUsage, err: err}
	}
	return made, nil
}

func dispatchConfig(settings *config.Config, built *handlers, bell *listener.Listener, logger zerolog.Logger) dispatch.Config {
	return dispatch.Config{
		Schema: settings.Database.Schema, Types: built.types, Concurrency: settings.Concurrency, Bell: bell, Presence: bell,
		Poll: settings.Poll, LeaseTime: settings.LeaseTime, DeadAfter: settings.DeadAfter, ManualLease: settings.ManualLease,
		// For dispatch, 0 means the default.
		ShutdownGrace: max(settings.ShutdownGrace, time.Nanosecond),
		Retention: dispatch.Retention{Completed: orNothing(settings.Retention.Completed), Failed: orNothing(settings.Retention.Failed),
			Cancelled: orNothing(settings.Retention.Cancelled)},
		Version: version, Logger: logger,
	}
}

// orNothing: for dispatch, 0 means the default.
func orNothing(age time.Duration) time.Duration {
	if age == 0 {
		return dispatch.KeepNothing
	}
	return age
}

// databaseName says where the jobs are, without user and password.
func databaseName(pool *pgxpool.Pool) string {
	conn := pool.Config().ConnConfig
	return fmt.Sprintf("%s/%s", net.JoinHostPort(conn.Host, fmt.Sprint(conn.Port)), conn.Database)
}

const (
	firstWait = 200 * time.Millisecond
	longWait  = 5 * time.Second
	// sayAgain is after how long a wait for the same reason is told once more.
	sayAgain = time.Minute
)

// awaitDatabase returns when the database answers and its schema fits. It waits for a database that can't be reached or
// refuses, but a schema or rights that don't fit need a person: those are errors.
func (a *app) awaitDatabase(ctx context.Context, settings *config.Config, logger zerolog.Logger, migrate bool, pooled *atomic.Bool) error {
	waiting := newWaiting(logger)
	for {
		err := a.tryDatabase(ctx, settings, logger, migrate, pooled)
		if err == nil {
			waiting.over()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		var connecting *connectError
		if !errors.As(err, &connecting) && !isConnectionLost(err) && !isPassing(err) {
			return err
		}
		if !waiting.wait(ctx, err) {
			return nil
		}
	}
}

func (a *app) tryDatabase(ctx context.Context, settings *config.Config, logger zerolog.Logger, migrate bool, pooled *atomic.Bool) error {
	conn, err := a.connect(ctx, settings)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if migrate {
		if err := migrations.Up(ctx, conn, migrations.Config{Schema: settings.Database.Schema, Logger: logger}); err != nil {
			return diagnoseMigration(conn, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout) // or somebody's lock on a table would stop it for ever
	defer cancel()
	if err := checkSchema(ctx, conn, settings); err != nil {
		return err
	}
	found, err := behindPooler(ctx, conn)
	var useless *failure
	if errors.As(err, &useless) {
		return err
	}
	if err != nil {
		return statementFailed(conn, "look for a pooler", err)
	}
	if found {
		logger.Info().Msg("database.url leads through a transaction pooler: no prepared statements are used")
	}
	pooled.Store(found)
	return nil
}
