package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/migrations"
)

const (
	// connectTimeout of a command: it says within 10 s that the database can't be reached.
	connectTimeout = 8 * time.Second
	// dialTimeout of one try of a pool, unless the URL has its own.
	dialTimeout = 5 * time.Second
	// pgxDialTimeout is what pgx takes where the URL says nothing.
	pgxDialTimeout = 2 * time.Minute
	// maxStatement is how long the server works on a statement at most, also where it has to wait for a lock before it knows what the
	// statement is.
	maxStatement = 10 * time.Second
)

// connConfig of a connection for the work. Name is its application_name.
func (a *app) connConfig(settings *config.Config, url, name string) (*pgx.ConnConfig, error) {
	if url == "" && !a.hasLibpqVariables() {
		return nil, &failure{code: exitUsage, err: errors.New("no database is given"),
			hint: "set DATABASE_URL (postgres://user:password@host:5432/database), or database.url in " + config.DefaultPath +
				", or PGHOST, PGDATABASE and the like"}
	}
	conn, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, &failure{code: exitUsage, err: errors.New("database.url can't be parsed"), hint: "check the PG* variables"}
	}
	adjustConn(conn, name)
	if isPooled(settings, url) {
		forgoPrepared(conn)
	}
	return conn, nil
}

func adjustConn(conn *pgx.ConnConfig, name string) {
	// The one startup parameter that poolers know and keep for each client.
	conn.RuntimeParams["application_name"] = name
	if conn.ConnectTimeout == pgxDialTimeout {
		conn.ConnectTimeout = dialTimeout
	}
}

// forgoPrepared: a prepared statement stays behind in a server connection that a transaction pooler gives to others.
func forgoPrepared(conn *pgx.ConnConfig) {
	if conn.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
}

// behindPooler asks the server for its process: a pooler has told the client another. One in statement mode is an error.
func behindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var answers uint32
	if err := conn.QueryRow(ctx, sqlProcess).Scan(&answers); err != nil {
		return false, fmt.Errorf("ask for the server process: %w", err)
	}
	if answers == conn.PgConn().PID() {
		return false, nil
	}
	tx, err := conn.Begin(ctx)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "08P01" {
		return true, &failure{code: exitDatabase, err: errors.New("database.url leads through a pooler in statement mode, which bears no transactions"),
			hint: "give pgbell's database pool_mode = transaction, or connect directly"}
	}
	if err == nil {
		err = tx.Rollback(ctx)
	}
	if err != nil {
		return true, fmt.Errorf("try a transaction: %w", err)
	}
	return true, nil
}

// isPooled: who names a direct connection beside this one says that this one isn't direct.
func isPooled(settings *config.Config, url string) bool {
	direct := settings.Database.ListenURL
	return direct != "" && direct != settings.Database.URL && url == settings.Database.URL
}

// hasLibpqVariables: one of those that say where a database is.
func (a *app) hasLibpqVariables() bool {
	for _, entry := range a.environ {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGPASSWORD":
			if value != "" {
				return true
			}
		}
	}
	return false
}

// connect makes one connection for a command, within connectTimeout.
func (a *app) connect(ctx context.Context, settings *config.Config) (*pgx.Conn, error) {
	conn, err := a.connConfig(settings, settings.Database.URL, "pgbell command")
	if err != nil {
		return nil, err
	}
	forgoPrepared(conn) // nothing is run twice
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	made, err := pgx.ConnectConfig(ctx, conn)
	if err != nil {
		return nil, &connectError{err: err}
	}
	return made, nil
}

// withConn runs a command's work on one connection, on a schema that fits this program.
func (a *app) withConn(ctx context.Context, settings *config.Config, work func(*pgx.Conn) error) error {
	conn, err := a.connect(ctx, settings)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if err := checkSchema(ctx, conn, settings); err != nil {
		return err
	}
	return work(conn)
}

func checkSchema(ctx context.Context, conn *pgx.Conn, settings *config.Config) error {
	err := migrations.Check(ctx, conn, settings.Database.Schema)
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return statementFailed(conn, "check the schema", err)
	}
	return err
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// newPool makes a pool; it connects when it is used, without prepared statements if pooled says so by then.
func (a *app) newPool(settings *config.Config, name string, conns int, pooled *atomic.Bool, crowded func() bool) (*pgxpool.Pool, error) {
	if _, err := a.connConfig(settings, settings.Database.URL, name); err != nil {
		return nil, err
	}
	pool, err := pgxpool.ParseConfig(settings.Database.URL)
	if err != nil {
		return nil, &failure{code: exitUsage, err: errors.New("database.url has a pool_ setting that can't be parsed")}
	}
	adjustConn(pool.ConnConfig, name)
	named := isPooled(settings, settings.Database.URL)
	pool.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		if named || pooled.Load() {
			forgoPrepared(conn)
		}
		return nil
	}
	pool.ShouldPing = shouldPing
	pool.AfterRelease = func(*pgx.Conn) bool { return !crowded() }
	pool.MaxConns = int32(conns)
	pool.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return limitSession(ctx, conn, settings) }
	// No context: a pool connects in the background for as long as it is open, and not before it is used.
	made, err := pgxpool.NewWithConfig(context.Background(), pool)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return made, nil
}

// limitSession sets what ends statements and sessions of a process that is gone without a word, on a direct connection alone: it would
// stay with a pooler's.
func limitSession(ctx context.Context, conn *pgx.Conn, settings *config.Config) error {
	limit := strconv.FormatInt(min(settings.LeaseTime/3, maxStatement).Milliseconds(), 10)
	if _, err := conn.Exec(ctx, sqlLimits, pgx.QueryExecModeExec, limit, int64(conn.PgConn().PID())); err != nil {
		return fmt.Errorf("set limits of the session: %w", err)
	}
	return nil
}

// connectError is a connection that didn't come about.
type connectError struct{ err error }

// Error is one line: pgx has one for each address and each TLS mode that it tried, often all the same.
func (e *connectError) Error() string {
	var parts []string
	for line := range strings.Lines(e.err.Error()) {
		if part := strings.TrimSpace(line); part != "" && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	text := strings.TrimPrefix(strings.Join(parts, "; "), "failed to ")
	return "connect to the database: " + strings.TrimPrefix(strings.ReplaceAll(text, ":; ", ": "), "connect to ")
}

func (e *connectError) Unwrap() error { return e.err }

// statementError knows as whom the statement was run.
type statementError struct {
	verb, role string
	err        error
}

func (e *statementError) Error() string { return e.verb + ": " + e.err.Error() }
func (e *statementError) Unwrap() error { return e.err }

func statementFailed(conn *pgx.Conn, verb string, err error) error {
	return &statementError{verb: verb, role: conn.Config().User, err: err}
}
