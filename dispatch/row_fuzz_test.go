package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// echo answers each job with what the test has put down for the next one, and hands on what it was given.
type echo struct {
	result chan dispatch.Result
	seen   chan dispatch.Job
}

func (e *echo) Run(_ context.Context, job dispatch.Job) dispatch.Result {
	e.seen <- job
	return <-e.result
}

// FuzzRow: a row that Postgres takes is claimed as it is, and whatever comes of it is settled; what it refuses, it refuses at the
// insert. Type, payload, metadata and timeout go through the claim; results and errors through the settles.
func FuzzRow(f *testing.F) {
	for _, seed := range []struct{ jobType, payload, metadata, timeout, output, text string }{
		{"a", `{"a": 1}`, `{}`, "1 min", `{"b": [1.50, 1e400]}`, "plain"},
		{"\u202e\x00", `"\u0000"`, `"\ud800"`, "-1 s", `"\u0000"`, "\x00\xff"},
		{"'; DROP TABLE jobs; --", `"\ud83d\ude00\\u0000"`, `null`, "infinity", `"\ud800"`, "\u2028"},
		{" ", `"\u007f\\"`, `{"traceparent": 1}`, "178000000 years", "\xff", ""},
		{"*", `[]`, `[]`, "1 mon -29 days", ` `, "\xed\xa0\x80"},
		{"{},\"", `1e1000`, `0`, "0.000001 s", `{`, "a [cut]"},
	} {
		f.Add(seed.jobType, seed.payload, seed.metadata, seed.timeout, seed.output, seed.text, false)
		f.Add(seed.jobType, seed.payload, seed.metadata, seed.timeout, seed.output, seed.text, true)
	}
	url := pgtest.Migrated(f)
	pool, handler := pgtest.Pool(f, url), &echo{make(chan dispatch.Result, 1), make(chan dispatch.Job, 1)}
	runUntilCleanup(f, url, dispatch.Config{PollDeaf: time.Millisecond, Types: map[string]dispatch.Type{dispatch.DefaultType: {Handler: handler}}})
	f.Fuzz(func(t *testing.T, jobType, payload, metadata, timeout, output, text string, fails bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		result := dispatch.Done(json.RawMessage(output))
		if fails {
			result = dispatch.Fail(errors.New(text))
		}
		handler.result <- result
		var id, kept string
		err := pool.QueryRow(ctx, `INSERT INTO jobs (type, payload, metadata, timeout, max_attempts) VALUES ($1, $2::text::jsonb, $3::text::jsonb, $4::text::interval, 1)
			RETURNING id::text, payload::text`, jobType, payload, metadata, timeout).Scan(&id, &kept)
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			<-handler.result
			t.Skip()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case job := <-handler.seen:
			if job.ID != id || job.Type != jobType || string(job.Payload) != kept || !json.Valid(job.Payload) || job.Metadata != nil && !json.Valid(job.Metadata) {
				t.Fatalf("inserted %q with %q, got %q with %q and %q", jobType, kept, job.Type, job.Payload, job.Metadata)
			}
			if left := time.Until(job.Deadline); left > 1e9*time.Second {
				t.Fatalf("timeout %q is %s", timeout, left)
			}
		case <-ctx.Done():
			t.Fatalf("%q is not claimed", jobType)
		}
		wantSettled(ctx, t, pool, id, fails, output)
	})
}

// wantSettled waits for a job's end, looks at it and deletes it.
func wantSettled(ctx context.Context, t *testing.T, pool *pgxpool.Pool, id string, fails bool, output string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		var status string
		var result, text *string
		err := pool.QueryRow(ctx, `DELETE FROM jobs WHERE id = $1 AND status IN ('completed', 'failed') RETURNING status::text, result::text, error`, id).
			Scan(&status, &result, &text)
		switch {
		case err != nil && ctx.Err() != nil:
			t.Fatalf("not settled: %v", err)
		case err != nil:
			<-tick.C
			continue
		case fails && (status != "failed" || text == nil || len(*text) > 4000):
			t.Fatalf("it is %s, error %v", status, text)
		case !fails && status == "failed" && (!json.Valid([]byte(output)) || text == nil):
			t.Fatalf("%q was refused: %v", output, text)
		case result != nil && !json.Valid([]byte(*result)):
			t.Fatalf("result %q", *result)
		}
		return
	}
}

// runUntilCleanup runs a Dispatcher until the test ends.
func runUntilCleanup(t testing.TB, url string, config dispatch.Config) {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dispatch.New(pool, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run dispatcher: %v", err)
		}
		pool.Close()
	})
}
