// Package conformance is what every way to run a job must do alike: jobs are inserted with plain SQL, a real Dispatcher hands them to
// the way's handlers, and the rows say what became of them.
package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// Behaviour is what a handler under test does. The way under test says how it is brought to do so.
type Behaviour string

const (
	// Echo completes the job with its payload as the result.
	Echo Behaviour = "echo"
	// Describe completes the job with {"id", "type", "attempt", "max_attempts", "lease"} as the result, the numbers as numbers.
	Describe Behaviour = "describe"
	// Flaky fails with an error that contains "flaky attempt N" at attempts 1 and 2, and completes the third.
	Flaky Behaviour = "flaky"
	// Hopeless fails each attempt, with an error that contains "hopeless".
	Hopeless Behaviour = "hopeless"
	// Permanent fails for good, with an error that contains "permanent".
	Permanent Behaviour = "permanent"
	// Slow doesn't answer until it is told to stop.
	Slow Behaviour = "slow"
	// Loud fails with an error of more than 100,000 bytes.
	Loud Behaviour = "loud"
	// Silent completes the job without a result.
	Silent Behaviour = "silent"
)

// Way returns the handler that behaves so. The URL names the database that its jobs come from.
type Way func(t *testing.T, databaseURL string, behaviour Behaviour) dispatch.Handler

type suite struct {
	*testing.T
	pool *pgxpool.Pool
}

// Run checks a way.
func Run(t *testing.T, way Way) {
	url := pgtest.Migrated(t)
	s := suite{T: t, pool: pgtest.Pool(t, url)}
	configured := map[string]dispatch.Type{}
	for _, b := range []Behaviour{Echo, Describe, Flaky, Hopeless, Permanent, Slow, Loud, Silent} {
		configured[string(b)] = dispatch.Type{
			Handler: way(t, url, b), Concurrency: 5, Timeout: 30 * time.Second, Backoff: dispatch.Backoff{Base: 10 * time.Millisecond, Factor: 1},
		}
	}
	s.dispatch(url, configured)

	for name, payload := range map[string]string{
		"object":  `{"to": "a@b.c", "nested": [1, {"x": null}], "big": 123456789012345678901234567890, "small": 1e-7}`,
		"hostile": `{"q": "'; DROP TABLE jobs; -- \" $(touch x) ${HOME} %s \\ \n\r\t <script>", "é": "\u2028日本\ud83d\ude00"}`,
		"string":  `"just text"`, "number": `42`, "list": `[]`, "null": `null`, "long": `"` + strings.Repeat("x", 200_000) + `"`,
	} {
		t.Run("echo "+name, func(t *testing.T) { suite{t, s.pool}.echo(payload) })
	}
	for name, check := range map[string]func(suite){
		"describe": suite.describe, "flaky": suite.flaky, "hopeless": suite.hopeless, "permanent": suite.permanent,
		"timeout": suite.timeout, "cancel": suite.cancel, "loud": suite.loud, "silent": suite.silent, "many": suite.many,
	} {
		t.Run(name, func(t *testing.T) { check(suite{t, s.pool}) })
	}
}

// dispatch runs a Dispatcher until the test ends.
func (s suite) dispatch(url string, configured map[string]dispatch.Type) {
	s.Helper()
	pool, err := pgxpool.New(context.Background(), pgtest.PoolURL(url))
	if err != nil {
		s.Fatal(err)
	}
	d, err := dispatch.New(pool, dispatch.Config{Types: configured, PollDeaf: 10 * time.Millisecond, LeaseTime: 6 * time.Second, ShutdownGrace: 5 * time.Second})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			s.Errorf("run dispatcher: %v", err)
		}
	})
	s.Cleanup(func() { cancel(); running.Wait(); pool.Close() })
}

// outcome is what became of a job.
type outcome struct {
	status   string
	attempts int
	text     string
	result   json.RawMessage
	noted    int
}

func (s suite) insert(b Behaviour, columns string, values ...any) (id string) {
	s.Helper()
	sql := fmt.Sprintf(`INSERT INTO jobs (type%s) VALUES ('%s'`, columns, b)
	for i := range values {
		sql += fmt.Sprintf(", $%d", i+1)
	}
	if err := s.pool.QueryRow(s.Context(), sql+`) RETURNING id`, values...).Scan(&id); err != nil {
		s.Fatal(err)
	}
	return id
}

// wait returns what became of a job, once that is final.
func (s suite) wait(id string) (o outcome) {
	s.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.pool.QueryRow(s.Context(), `SELECT status, attempts, coalesce(error, ''), result, (SELECT count(*) FROM job_errors e WHERE e.job_id = j.id)
			FROM jobs j WHERE id = $1`, id).Scan(&o.status, &o.attempts, &o.text, &o.result, &o.noted)
		if err != nil {
			s.Fatal(err)
		}
		if o.status == "completed" || o.status == "failed" || o.status == "cancelled" {
			return o
		}
		select {
		case <-deadline:
			s.Fatalf("job is %+v after 30 s", o)
		case <-tick.C:
		}
	}
}

func (s suite) echo(payload string) {
	var same bool
	id := s.insert(Echo, ", payload", payload)
	if o := s.wait(id); o.status != "completed" || o.attempts != 1 || o.noted != 0 {
		s.Fatalf("job is %.300v", o)
	}
	// A result of null is no result.
	err := s.pool.QueryRow(s.Context(), `SELECT coalesce(result, 'null') = payload FROM jobs WHERE id = $1`, id).Scan(&same)
	if err != nil || !same {
		s.Errorf("the result isn't the payload (error %v)", err)
	}
}

func (s suite) describe() {
	id := s.insert(Describe, ", max_attempts", 7)
	o := s.wait(id)
	got := map[string]any{}
	if err := json.Unmarshal(o.result, &got); err != nil {
		s.Fatalf("result %s: %v (job is %+v)", o.result, err, o)
	}
	if lease, _ := got["lease"].(string); len(lease) != len(id) || lease == id {
		s.Errorf("lease is %q", lease)
	}
	delete(got, "lease")
	if want := map[string]any{"id": id, "type": "describe", "attempt": 1.0, "max_attempts": 7.0}; !reflect.DeepEqual(got, want) {
		s.Errorf("handler saw %v, want %v", got, want)
	}
}

func (s suite) flaky() {
	if o := s.wait(s.insert(Flaky, "")); o.status != "completed" || o.attempts != 3 || o.noted != 2 || !strings.Contains(o.text, "flaky attempt 2") {
		s.Errorf("job is %+v", o)
	}
}

func (s suite) hopeless() {
	if o := s.wait(s.insert(Hopeless, ", max_attempts", 2)); o.status != "failed" || o.attempts != 2 || o.noted != 2 || !strings.Contains(o.text, "hopeless") {
		s.Errorf("job is %+v", o)
	}
}

func (s suite) permanent() {
	if o := s.wait(s.insert(Permanent, "")); o.status != "failed" || o.attempts != 1 || o.noted != 1 || !strings.Contains(o.text, "permanent") {
		s.Errorf("job is %+v", o)
	}
}

func (s suite) timeout() {
	begun := time.Now()
	o := s.wait(s.insert(Slow, ", max_attempts, timeout", 1, 300*time.Millisecond))
	if o.status != "failed" || o.attempts != 1 || !strings.Contains(o.text, "timed out after 300ms") {
		s.Errorf("job is %+v", o)
	}
	if took := time.Since(begun); took > 10*time.Second {
		s.Errorf("it took %v to end a job with a timeout of 300 ms", took)
	}
}

func (s suite) cancel() {
	id := s.insert(Slow, ", max_attempts", 1)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begun := false; !begun; {
		<-tick.C
		if err := s.pool.QueryRow(s.Context(), `SELECT status = 'processing' FROM jobs WHERE id = $1`, id).Scan(&begun); err != nil {
			s.Fatal(err)
		}
	}
	if _, err := s.pool.Exec(s.Context(), `SELECT cancel_job($1)`, id); err != nil {
		s.Fatal(err)
	}
	if o := s.wait(id); o.status != "cancelled" || o.attempts != 1 {
		s.Errorf("job is %+v", o)
	}
}

func (s suite) loud() {
	if o := s.wait(s.insert(Loud, ", max_attempts", 1)); o.status != "failed" || len(o.text) > 4000 || len(o.text) < 100 {
		s.Errorf("job is %.200v, error of %d bytes", o, len(o.text))
	}
}

func (s suite) silent() {
	if o := s.wait(s.insert(Silent, "")); o.status != "completed" || (o.result != nil && string(o.result) != "null") {
		s.Errorf("job is %+v, result %s", o, o.result)
	}
}

func (s suite) many() {
	const n = 40
	if _, err := s.pool.Exec(s.Context(), `INSERT INTO jobs (type, payload) SELECT 'echo', to_jsonb('many ' || n) FROM generate_series(1, $1) n`, n); err != nil {
		s.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for done := 0; done < n; {
		select {
		case <-deadline:
			s.Fatalf("%d of %d jobs are done after 30 s", done, n)
		case <-tick.C:
		}
		if err := s.pool.QueryRow(s.Context(), `SELECT count(*) FROM jobs WHERE payload::text LIKE '"many %' AND status = 'completed' AND result = payload AND attempts = 1`).Scan(&done); err != nil {
			s.Fatal(err)
		}
	}
}
