package migrations_test

import (
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestSmoke(t *testing.T) {
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	var n int
	if err := pool.QueryRow(t.Context(), "INSERT INTO jobs(type) VALUES ('a'),('b') RETURNING 1").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM claim_jobs()").Scan(&n); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	for _, q := range []string{"SELECT enqueue_job('x', unique_key => 'k')", "SELECT cancel_job(enqueue_job('x', unique_key => 'k'))",
		"SELECT heartbeat_job(id, lease), fail_job(id, lease, 'boo') FROM (SELECT * FROM jobs WHERE status='processing' LIMIT 1) j",
		"SELECT complete_job(id, lease, '1') FROM (SELECT * FROM jobs WHERE status='processing' LIMIT 1) j",
		"SELECT retry_job(id) FROM jobs WHERE status='completed'", "select pause_type('a')", "select resume_type('a')", "select ring_jobs()"} {
		if _, err := pool.Exec(t.Context(), q); err != nil {
			t.Error(q, err)
		}
	}
}
