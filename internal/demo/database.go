package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

// errBadURL says nothing of what was given: the parser would quote it, and a mistake often stands next to the password.
var errBadURL = errors.New("the database URL can't be parsed; write postgres://user:password@host:5432/database with " +
	"special characters in the password percent-encoded, or keywords and values such as host=H user=U dbname=D")

const (
	connectTimeout = 10 * time.Second
	cleanupTimeout = 10 * time.Second
)

// database is where the demo's jobs are, with pgbell and the application's table and function in it.
type database struct {
	url, schema string
	own         bool   // a throwaway server of this process
	version     string // of the server
	where       string // for people, without secrets
	home        string // folder for the application's files
}

// openDatabase starts a server, or makes a schema in the database that the config names. What it leaves behind is added
// to leftovers.
func openDatabase(ctx context.Context, config Config, leftovers *leftovers) (database, error) {
	d := database{url: config.DatabaseURL, schema: config.Schema, own: config.DatabaseURL == ""}
	if err := leftovers.making(func() (func() error, error) {
		if d.own {
			return d.startServer(ctx, config)
		}
		var err error
		d.home, err = os.MkdirTemp("", "pgbell-demo-")
		return func() error { return os.RemoveAll(d.home) }, err
	}); err != nil {
		return d, err
	}
	conn, err := d.connect(ctx)
	if err != nil {
		return d, err
	}
	defer closeConn(conn)
	host := net.JoinHostPort(conn.Config().Host, strconv.Itoa(int(conn.Config().Port)))
	if d.where = host; !d.own {
		d.where = fmt.Sprintf("%s, database %s, schema %s", host, conn.Config().Database, d.schema)
	}
	if err := conn.QueryRow(ctx, versionSQL).Scan(&d.version); err != nil {
		return d, fmt.Errorf("ask for the server's version: %w", err)
	}
	if !d.own {
		if err := d.makeSchema(ctx, conn, leftovers); err != nil {
			return d, err
		}
	}
	if err := migrations.Up(ctx, conn, migrations.Config{Schema: d.schema}); err != nil {
		return d, fmt.Errorf("migrate: %w", err)
	}
	if _, err := conn.Exec(ctx, newStatements(d.schema).application); err != nil {
		return d, fmt.Errorf("create the application's table and function: %w", err)
	}
	return d, nil
}

func (d *database) startServer(ctx context.Context, config Config) (stop func() error, err error) {
	// Durable, so that commits cost here what they cost elsewhere.
	server, err := postgres.Start(ctx, postgres.Options{Durable: true, Notice: config.Notice})
	if err != nil {
		return nil, err
	}
	d.url = server.URL("postgres")
	// In the server's folder: what a killed demo leaves there, the next server's start removes.
	d.home = filepath.Join(filepath.Dir(server.Log()), "demo")
	if err := os.Mkdir(d.home, 0o700); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return server.Stop, nil
}

func (d database) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(d.url)
	if err != nil {
		return nil, errBadURL
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// closeConn says goodbye; a server that is gone already needs none.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// makeSchema never takes an existing schema: it is dropped at the end.
func (d database) makeSchema(ctx context.Context, conn *pgx.Conn, leftovers *leftovers) error {
	schema := pgx.Identifier{d.schema}.Sanitize()
	return leftovers.making(func() (func() error, error) {
		_, err := conn.Exec(ctx, createSchemaSQL+schema)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "42P06" { // duplicate_schema
			return nil, fmt.Errorf("schema %s exists: drop it if an earlier demo has left it (DROP SCHEMA %s CASCADE), or give --schema another name", d.schema, schema)
		}
		if err != nil {
			return nil, fmt.Errorf("create schema %s: %w", d.schema, err)
		}
		return d.dropSchema, nil
	})
}

func (d database) dropSchema() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	conn, err := d.connect(ctx)
	if err != nil {
		return fmt.Errorf("drop schema %s: %w", d.schema, err)
	}
	defer closeConn(conn)
	if _, err := conn.Exec(ctx, strings.ReplaceAll(dropSchemaSQL, "{schema}", pgx.Identifier{d.schema}.Sanitize())); err != nil {
		return fmt.Errorf("drop schema %s: %w", d.schema, err)
	}
	return nil
}

// psql is the command that inserts a job. The password is in it for the throwaway server alone.
func (d database) psql() string {
	table, target := "jobs", d.url
	if !d.own {
		table, target = d.schema+".jobs", withoutPassword(d.url)
		if !plainName.MatchString(d.schema) {
			table = pgx.Identifier{d.schema}.Sanitize() + ".jobs"
		}
	}
	sql := "INSERT INTO " + table + ` (type, payload) VALUES ('hello', '{"name":"you"}')`
	return "psql " + shellQuote(target) + ` -c "` + strings.NewReplacer(`"`, `\"`, "$", `\$`, "`", "\\`", `\`, `\\`).Replace(sql) + `"`
}

// plainName needs no quotes, unless it is a key word.
var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// withoutPassword is a URL to the same database for any form of the given one.
func withoutPassword(text string) string {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return "postgres://..."
	}
	target := url.URL{Scheme: "postgres", User: url.User(config.User), Path: "/" + config.Database}
	if strings.HasPrefix(config.Host, "/") {
		target.RawQuery = url.Values{"host": {config.Host}, "port": {strconv.Itoa(int(config.Port))}}.Encode()
	} else {
		target.Host = net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	}
	return target.String()
}
