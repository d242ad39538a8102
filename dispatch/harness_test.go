package dispatch_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// fixture is a database of its own, and a Dispatcher on it.
type fixture struct {
	*testing.T
	pool *pgxpool.Pool
	url  string
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	url := pgtest.Migrated(t)
	return fixture{T: t, pool: pgtest.Pool(t, url), url: url}
}

// start runs a Dispatcher until the returned function is called, or the test ends. It polls fast unless config has a Bell.
func (f fixture) start(config dispatch.Config) (stop func()) {
	f.Helper()
	if config.PollDeaf == 0 {
		config.PollDeaf = 10 * time.Millisecond
	}
	if config.ShutdownGrace == 0 {
		config.ShutdownGrace = 5 * time.Second
	}
	pool, err := pgxpool.New(context.Background(), pgtest.PoolURL(f.url))
	if err != nil {
		f.Fatalf("open pool: %v", err)
	}
	d, err := dispatch.New(pool, config)
	if err != nil {
		f.Fatalf("new dispatcher: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Errorf("run dispatcher: %v", err)
		}
		pool.Close()
	})
	f.Cleanup(stop)
	select {
	case <-d.Ready():
	case <-time.After(20 * time.Second):
		f.Fatal("dispatcher isn't ready after 20 s")
	}
	return stop
}

// types is one type for each function.
func types(functions map[string]func(context.Context, dispatch.Job) (any, error)) map[string]dispatch.Type {
	configured := map[string]dispatch.Type{}
	for name, function := range functions {
		configured[name] = dispatch.Type{Handler: gofunc.New(function)}
	}
	return configured
}

// insert runs an INSERT ... RETURNING id.
func (f fixture) insert(sql string, arguments ...any) string {
	f.Helper()
	var id string
	if err := f.pool.QueryRow(f.Context(), sql, arguments...).Scan(&id); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
	return id
}

func (f fixture) exec(sql string, arguments ...any) {
	f.Helper()
	if _, err := f.pool.Exec(f.Context(), sql, arguments...); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
}

func (f fixture) count(sql string, arguments ...any) int {
	f.Helper()
	var n int
	if err := f.pool.QueryRow(f.Context(), sql, arguments...).Scan(&n); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
	return n
}

// row is what tests look at of a job.
type row struct {
	Status            string
	Attempts, Crashes int
	Error             *string
	Result            json.RawMessage
	Lease             *string
	DueIn             float64 // seconds
	Completed         bool
	Errors            int // rows in job_errors
}

func (f fixture) job(id string) row {
	f.Helper()
	var r row
	err := f.pool.QueryRow(f.Context(), `SELECT status, attempts, crashes, error, result, lease::text,
		extract(epoch FROM scheduled_for - clock_timestamp())::float8, completed_at IS NOT NULL,
		(SELECT count(*) FROM job_errors e WHERE e.job_id = j.id) FROM jobs j WHERE id = $1`, id).
		Scan(&r.Status, &r.Attempts, &r.Crashes, &r.Error, &r.Result, &r.Lease, &r.DueIn, &r.Completed, &r.Errors)
	if err != nil {
		f.Fatalf("read job: %v", err)
	}
	return r
}

// until waits for a job to reach a status.
func (f fixture) until(id, status string) row {
	f.Helper()
	var last row
	defer func() {
		if f.Failed() {
			f.Logf("job is %+v, error %q", last, deref(last.Error))
		}
	}()
	f.eventually("job "+id+" becomes "+status, func() bool {
		last = f.job(id)
		return last.Status == status
	})
	return last
}

// eventually polls a condition for at most 20 s.
func (f fixture) eventually(what string, condition func() bool) {
	f.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			f.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}
