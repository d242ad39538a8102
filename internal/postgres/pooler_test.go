package postgres_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
)

// Through a pooler in transaction mode each role is itself, and sessions are shared.
func TestPoolerLeadsEachRoleToTheServer(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{})
	pooler, err := postgres.StartPooler(t.Context(), server.URL("postgres"), postgres.PoolerOptions{PoolSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pooler.Stop(); err != nil {
			t.Error(err)
		}
	})
	query(t, server, "CREATE ROLE producer LOGIN PASSWORD 'hush'")
	for _, role := range []string{"postgres", "producer"} {
		through, err := pooler.URL(server.URL("template1"))
		if err != nil {
			t.Fatal(err)
		}
		config, err := pgx.ParseConfig(through)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		if config.User = role; role == "producer" {
			config.Password = "hush"
		}
		var pids [2]int
		for i := range pids {
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			var user, database string
			if err := conn.QueryRow(t.Context(), "SELECT current_user, current_database(), pg_backend_pid()").Scan(&user, &database, &pids[i]); err != nil {
				t.Fatal(err)
			}
			if user != role || database != "template1" {
				t.Errorf("through the pooler %s is %s in %s", role, user, database)
			}
		}
		if pids[0] != pids[1] {
			t.Errorf("two connections of %s have sessions of their own", role)
		}
	}
}

func TestPoolerThatEndsAtOnceSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := postgres.StartPooler(t.Context(), "postgres://u:p@127.0.0.1:1/d", postgres.PoolerOptions{Mode: "no such mode"})
	if err == nil || !strings.Contains(err.Error(), "pool_mode") {
		t.Errorf("error %v, want one that names the setting", err)
	}
}
