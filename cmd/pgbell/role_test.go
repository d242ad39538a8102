package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// A role that is a member of pgbell_worker and nothing more runs all that a sidecar does: claims and settles by each way, reaping,
// retention, the watch over the horizon, registration.
func TestRunAsWorkerRole(t *testing.T) {
	t.Parallel()
	application := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(application.Close)
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	name, loginURL := newLogin(t, databaseURL)
	if _, err := pool.Exec(t.Context(), fmt.Sprintf(`GRANT pgbell_worker TO %s;
		CREATE FUNCTION work(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
		INSERT INTO job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after, heartbeat_at)
		  OVERRIDING SYSTEM VALUE SELECT 'dead', 'v', 2, 1, '{*}', '15 s', '1 s', now() - interval '1 h' FROM generate_series(1, 3);
		INSERT INTO jobs (type, status, attempts, lease, worker_id, started_at) SELECT 'post', 'processing', 1, gen_random_uuid(), min(id), now() - interval '1 h' FROM job_workers;
		INSERT INTO jobs (type, status, attempts, lease, held_until) VALUES ('child', 'processing', 1, gen_random_uuid(), now() - interval '1 h');
		INSERT INTO jobs (type, status, completed_at, updated_at) SELECT 'old', 'completed', now() - interval '1 y', now() - interval '1 y' FROM generate_series(1, 100)`, name)); err != nil {
		t.Fatal(err)
	}
	s := runSidecar(t, loginURL, fmt.Sprintf(`
log: {level: trace}
manual_lease: 10m
retention: {completed: 1h, failed: 0s}
handlers:
  post: {webhook: {url: %q}}
  child: {subprocess: {command: [cat]}}
  function: {sqlfunc: {function: public.work}}
`, application.URL))
	s.awaitReady()
	for _, kind := range []string{"post", "child", "function"} {
		awaitStatus(t, pool, insert(t, pool, kind, `{"x": 1}`), "completed")
	}
	eventually(t, "the dead one's jobs to run again and the old ones to go", func() bool {
		var again, old int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE type <> 'old' AND status = 'completed' AND attempts = 2), count(*) FILTER (WHERE type = 'old') FROM jobs").
			Scan(&again, &old); err != nil {
			t.Fatal(err)
		}
		return again == 2 && old == 0
	})
	if log := s.log(); strings.Contains(log, "denied") || strings.Contains(log, `"level":"error"`) {
		t.Error("the role lacks something")
	}
	if code, body := s.get("/metrics"); code != http.StatusOK || !strings.Contains(body, "pgbell_backlog_up 1") {
		t.Errorf("/metrics: %d without the backlog", code)
	}
}
