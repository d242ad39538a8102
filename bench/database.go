package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

// database is a throwaway server with a database that each round gets a copy of.
type database struct {
	server *postgres.Server
	serial int
}

const template = "bench_template"

func startDatabase(ctx context.Context) (*database, error) {
	server, err := postgres.Start(ctx, postgres.Options{Durable: true, Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "4GB", "min_wal_size": "1GB",
	}})
	if err != nil {
		return nil, err
	}
	return &database{server: server}, nil
}

func (d *database) stop() error { return d.server.Stop() }

const fillSQL = `INSERT INTO jobs (type, payload) SELECT 'bench', $2::jsonb FROM generate_series(1, $1)`

// fill makes the template, with pgbell installed and jobs that are due.
func (d *database) fill(ctx context.Context, jobs int, payload string) error {
	if err := d.exec(ctx, "postgres", "CREATE DATABASE "+template+" TEMPLATE template0"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, d.server.URL(template))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := migrations.Up(ctx, conn, migrations.Config{}); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, fillSQL, jobs, payload); err != nil {
		return fmt.Errorf("insert jobs: %w", err)
	}
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
		return fmt.Errorf("vacuum: %w", err)
	}
	return nil
}

// copy makes a database like the template, after a checkpoint, and says how to drop it.
func (d *database) copy(ctx context.Context) (url string, drop func() error, err error) {
	d.serial++
	name := fmt.Sprintf("bench_%d", d.serial)
	if err := d.exec(ctx, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return "", nil, err
	}
	drop = func() error {
		return d.exec(context.WithoutCancel(ctx), "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
	}
	if err := d.exec(ctx, "postgres", "CHECKPOINT"); err != nil {
		return "", nil, err
	}
	return d.server.URL(name), drop, nil
}

func (d *database) exec(ctx context.Context, name, sql string) error {
	conn, err := pgx.Connect(ctx, d.server.URL(name))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// serverFacts are what of the server bears on figures.
type serverFacts struct {
	Version  string            `json:"version"`
	Settings map[string]string `json:"settings"`
	// CommitMilliseconds is the median time of a transaction that writes one row.
	CommitMilliseconds float64 `json:"commit_ms"`
}

const settingsSQL = `SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit',
  'full_page_writes', 'wal_sync_method', 'shared_buffers', 'max_wal_size', 'autovacuum')`

func (d *database) describe(ctx context.Context) (serverFacts, error) {
	facts := serverFacts{Settings: map[string]string{}}
	conn, err := pgx.Connect(ctx, d.server.URL("postgres"))
	if err != nil {
		return facts, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&facts.Version); err != nil {
		return facts, fmt.Errorf("read version: %w", err)
	}
	rows, err := conn.Query(ctx, settingsSQL)
	if err != nil {
		return facts, fmt.Errorf("read settings: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Value string }])
	if err != nil {
		return facts, fmt.Errorf("read settings: %w", err)
	}
	for _, setting := range found {
		facts.Settings[setting.Name] = setting.Value
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE commits (n int)"); err != nil {
		return facts, fmt.Errorf("time commits: %w", err)
	}
	var took []float64
	for n := range 201 {
		start := time.Now()
		if _, err := conn.Exec(ctx, "INSERT INTO commits VALUES ($1)", n); err != nil {
			return facts, fmt.Errorf("time commits: %w", err)
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	slices.Sort(took)
	facts.CommitMilliseconds = took[len(took)/2]
	return facts, nil
}
