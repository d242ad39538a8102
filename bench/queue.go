package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
)

// queue is a job queue under test, or what stands for the floor. Its jobs are of one type, bench, and numbered.
type queue interface {
	name() string
	// tuning says what differs from the defaults, and why that is fair.
	tuning() string
	role() role
	// ready says whether it can run on this machine; errMissing otherwise.
	ready(ctx context.Context) error
	// install makes its tables in an empty database, with so many due jobs.
	install(ctx context.Context, url string, jobs int) error
	// producer inserts jobs as the queue's documentation has it.
	producer(ctx context.Context, url string, connections int) (producer, error)
	// boot makes a worker that has connected, or is about to, and does not work yet.
	boot(ctx context.Context, url string, load load) (worker, error)
	// left says whether there are jobs that are not finished.
	left(ctx context.Context, conn *pgx.Conn) (bool, error)
	// finished is an error unless the database says that so many jobs have run once and completed.
	finished(ctx context.Context, conn *pgx.Conn, jobs int) error
}

// load is what a worker is to do.
type load struct {
	recorder *recorder
	// concurrency that the scenario asks for; 0 leaves it to the queue's tuning.
	concurrency int
	// each job takes so long.
	each time.Duration
	// handler replaces pgbell's.
	handler dispatch.Handler
}

// worker runs jobs.
type worker interface {
	// work starts it. It may return before the worker looks for jobs.
	work(ctx context.Context) error
	// collect completes the recorder.
	collect(ctx context.Context) error
	// stop ends it, with all that it started, and says what went wrong.
	stop() error
}

// producer inserts single jobs, each committed when insert returns. It may be called by as many goroutines as it was given
// connections. A zero due time means now.
type producer interface {
	insert(ctx context.Context, n int, due time.Time) error
	close()
}

// statements is a producer that is one statement.
type statements struct {
	pool       *pgxpool.Pool
	now, later string
	// args of a job; nil means the payload, and the due time if there is one.
	args func(n int, due time.Time) []any
}

func (s statements) insert(ctx context.Context, n int, due time.Time) error {
	args, statement := []any{payloadOf(n)}, s.now
	if !due.IsZero() {
		args, statement = append(args, due), s.later
	}
	if s.args != nil {
		args = s.args(n, due)
	}
	if _, err := s.pool.Exec(ctx, statement, args...); err != nil {
		return fmt.Errorf("insert job: %w", err)
	}
	return nil
}

func (s statements) close() { s.pool.Close() }

// openPool opens a pool with all its connections made.
func openPool(ctx context.Context, url string, size int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("configure pool: %w", err)
	}
	config.MaxConns, config.MinConns = int32(size), int32(size)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	held := make([]*pgxpool.Conn, 0, size)
	defer func() {
		for _, conn := range held {
			conn.Release()
		}
	}()
	for range size {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			pool.Close()
			return nil, fmt.Errorf("connect: %w", err)
		}
		held = append(held, conn)
	}
	return pool, nil
}

// connect opens one connection.
func connect(ctx context.Context, url string) (conn *pgx.Conn, closeConn func(), err error) {
	conn, err = pgx.Connect(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	return conn, func() { _ = conn.Close(context.WithoutCancel(ctx)) }, nil
}

// exists and counted read the single value of a probe.
func exists(ctx context.Context, conn *pgx.Conn, sql string) (found bool, err error) {
	if err := conn.QueryRow(ctx, sql).Scan(&found); err != nil {
		return false, fmt.Errorf("look for jobs: %w", err)
	}
	return found, nil
}

func counted(ctx context.Context, conn *pgx.Conn, sql string) (count int, err error) {
	if err := conn.QueryRow(ctx, sql).Scan(&count); err != nil {
		return 0, fmt.Errorf("count jobs: %w", err)
	}
	return count, nil
}

// expect is an error unless a count is as it should be.
func expect(ctx context.Context, conn *pgx.Conn, sql string, jobs int) error {
	count, err := counted(ctx, conn, sql)
	if err == nil && count != jobs {
		err = fmt.Errorf("the database has %d jobs that ran once and completed, not %d", count, jobs)
	}
	return err
}

// execute runs statements on a connection of their own.
func execute(ctx context.Context, url string, statements ...string) error {
	conn, closeConn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer closeConn()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%.60s: %w", statement, err)
		}
	}
	return nil
}

// executeFilled is execute for one statement with the number of jobs.
func executeFilled(ctx context.Context, url, statement string, jobs int) error {
	if jobs == 0 {
		return nil
	}
	conn, closeConn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer closeConn()
	if _, err := conn.Exec(ctx, statement, jobs); err != nil {
		return fmt.Errorf("insert %d jobs: %w", jobs, err)
	}
	return nil
}
