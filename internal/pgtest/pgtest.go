// Package pgtest gives each test a real Postgres database of its own.
//
// TEST_DATABASE_URL names the server, with a role that may create databases; without it, a throwaway server is started
// once per test binary. Main must be called from TestMain.
//
// Where TEST_POOLER_URL leads to that server through a transaction pooler, the work goes through it, as with users who have
// one: what a sidecar and an application do over Pool, PoolURL and WorkURL. The URLs of Empty and Migrated lead directly to
// the server; listeners need that, and so do tests that look at processes of the server or set what stays with a session.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

var shared struct {
	once     sync.Once
	server   *postgres.Server
	url      string
	err      error
	template sync.Once
	tempErr  error
	serial   atomic.Int64
}

// Main runs the tests of a package and stops the server that they used. It returns the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	if shared.url != "" {
		dropLeftovers()
	}
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop postgres:", err)
		}
	}
	return code
}

// Empty returns the URL of a new, empty database, which is dropped when the test ends.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, "template0")
}

// Migrated returns the URL of a new database with pgbell installed in the schema public, which is dropped when the test ends.
func Migrated(t testing.TB) string {
	t.Helper()
	serve(t)
	shared.template.Do(func() { shared.tempErr = makeTemplate(t) })
	if shared.tempErr != nil {
		t.Fatalf("make template database: %v", shared.tempErr)
	}
	return create(t, templateName())
}

// Pool returns a pool on a database, through the pooler if there is one, closed when the test ends.
func Pool(t testing.TB, databaseURL string) *pgxpool.Pool {
	t.Helper()
	return DirectPool(t, PoolURL(databaseURL))
}

// DirectPool is Pool without the pooler.
func DirectPool(t testing.TB, databaseURL string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), databaseURL)
	if err != nil {
		t.Fatalf("open pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// PoolURL is WorkURL for a pgx pool, which a pooler's URL tells that sessions are shared.
func PoolURL(databaseURL string) string {
	work := WorkURL(databaseURL)
	if work == databaseURL {
		return databaseURL
	}
	parsed, err := url.Parse(work)
	if err != nil {
		return work
	}
	query := parsed.Query()
	query.Set("default_query_exec_mode", "cache_describe")
	parsed.RawQuery = query.Encode()
	return parsed.String()
}

// WorkURL is the URL for the work on a database that was made here: through the pooler, if there is one. Other URLs, of
// proxies and of servers that tests start for themselves, stay as they are.
func WorkURL(databaseURL string) string {
	pooler, poolerErr := url.Parse(os.Getenv("TEST_POOLER_URL"))
	server, serverErr := url.Parse(os.Getenv("TEST_DATABASE_URL"))
	database, err := url.Parse(databaseURL)
	if poolerErr != nil || serverErr != nil || err != nil || pooler.Host == "" || database.Host != server.Host {
		return databaseURL
	}
	database.Host = pooler.Host
	return database.String()
}

func serve(t testing.TB) {
	t.Helper()
	shared.once.Do(func() {
		if shared.url = os.Getenv("TEST_DATABASE_URL"); shared.url != "" {
			return
		}
		if shared.server, shared.err = postgres.Start(context.Background(), postgres.Options{}); shared.err == nil {
			shared.url = shared.server.URL("postgres")
		}
	})
	if shared.err != nil {
		t.Fatalf("start postgres: %v", shared.err)
	}
}

func prefix() string       { return fmt.Sprintf("pgbell_test_%d_", os.Getpid()) }
func templateName() string { return prefix() + "template" }

func create(t testing.TB, template string) string {
	t.Helper()
	serve(t)
	name := fmt.Sprintf("%s%d", prefix(), shared.serial.Add(1))
	if err := admin(fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template)); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		if err := admin(fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)); err != nil {
			t.Logf("drop database %s: %v", name, err)
		}
	})
	return databaseURL(name)
}

func makeTemplate(t testing.TB) error {
	if err := admin(fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0", templateName())); err != nil {
		return err
	}
	conn, err := pgx.Connect(t.Context(), databaseURL(templateName()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	return migrations.Up(t.Context(), conn, migrations.Config{})
}

func dropLeftovers() {
	if err := admin(fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", templateName())); err != nil {
		fmt.Fprintln(os.Stderr, "drop template database:", err)
	}
}

// admin runs one statement in the server's own database, on a connection of its own.
func admin(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, shared.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

func databaseURL(name string) string {
	parsed, err := url.Parse(shared.url)
	if err != nil || !strings.HasPrefix(parsed.Scheme, "postgres") {
		return shared.url + " dbname=" + name
	}
	parsed.Path = "/" + name
	return parsed.String()
}
