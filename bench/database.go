package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
)

// database is a throwaway server with templates that rounds get copies of.
type database struct {
	server    *postgres.Server
	serial    int
	templates map[string]string // name of a template's database by its key
}

// template is what a round starts with. Templates with one key are one.
type template struct {
	key  string
	make func(ctx context.Context, url string) error
}

func startDatabase(ctx context.Context) (*database, error) {
	server, err := postgres.Start(ctx, postgres.Options{Durable: true, Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "4GB", "min_wal_size": "1GB", "max_connections": "400",
	}})
	if err != nil {
		return nil, err
	}
	return &database{server: server, templates: map[string]string{}}, nil
}

func (d *database) stop() error { return d.server.Stop() }

// build makes a template, unless it is there.
func (d *database) build(ctx context.Context, t template) error {
	if _, ok := d.templates[t.key]; ok {
		return nil
	}
	d.serial++
	name := fmt.Sprintf("template_%d", d.serial)
	if err := d.admin(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return err
	}
	d.templates[t.key] = name
	url := d.server.URL(name)
	if err := t.make(ctx, url); err != nil {
		return fmt.Errorf("make %s: %w", t.key, err)
	}
	return execute(ctx, url, "VACUUM (ANALYZE)")
}

// forget drops all templates.
func (d *database) forget(ctx context.Context) error {
	var errs []error
	for key, name := range d.templates {
		errs = append(errs, d.admin(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)"))
		delete(d.templates, key)
	}
	return errors.Join(errs...)
}

// copy makes a database like a template, after a checkpoint, and says how to drop it. Files are copied as they are: that is
// quick for big ones, and leaves no trail in the WAL.
func (d *database) copy(ctx context.Context, t template) (url string, drop func() error, err error) {
	if err := d.build(ctx, t); err != nil {
		return "", nil, err
	}
	d.serial++
	name := fmt.Sprintf("bench_%d", d.serial)
	create := "CREATE DATABASE " + name + " TEMPLATE " + d.templates[t.key]
	conn, closeConn, err := connect(ctx, d.server.URL("postgres"))
	if err != nil {
		return "", nil, err
	}
	defer closeConn()
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return "", nil, fmt.Errorf("read version: %w", err)
	}
	if version >= 150000 {
		create += " STRATEGY file_copy"
	}
	for _, statement := range []string{create, "CHECKPOINT"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", nil, fmt.Errorf("%s: %w", statement, err)
		}
	}
	drop = func() error { return d.admin(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)") }
	return d.server.URL(name), drop, nil
}

func (d *database) admin(ctx context.Context, statements ...string) error {
	return execute(ctx, d.server.URL("postgres"), statements...)
}

// serverFacts are what of the server bears on figures.
type serverFacts struct {
	Version  string            `json:"version"`
	Settings map[string]string `json:"settings"`
	// CommitMilliseconds is the median time of a transaction that writes one row.
	CommitMilliseconds float64 `json:"commit_ms"`
}

func (d *database) describe(ctx context.Context) (serverFacts, error) {
	facts := serverFacts{Settings: map[string]string{}}
	conn, closeConn, err := connect(ctx, d.server.URL("postgres"))
	if err != nil {
		return facts, err
	}
	defer closeConn()
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
	facts.CommitMilliseconds = quantile(took, 0.5)
	return facts, nil
}
