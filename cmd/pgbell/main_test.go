package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	subprocess.GuardMain()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	folder, err := os.MkdirTemp("", "pgbell-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binary = filepath.Join(folder, "pgbell")
	if output, err := exec.Command("go", "build", raceFlag, "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build pgbell: %v\n%s", err, output)
		return 1
	}
	code := pgtest.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the real binary. Beside testscript's own commands there are:
//
//	database empty|migrated   a database of the script's own; DATABASE_URL is its URL
//	sql STATEMENT             run it there
//	login                     a role that may nothing; LOGIN_URL is its URL there, LOGIN its name
//	libpq                     the PG* variables say where the database is, and DATABASE_URL nothing
//	silentserver              SILENT_URL leads to a server that accepts connections and never answers
//	exits CODE ARG...         pgbell must exit with that code, within 10 s
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"database": func(script *testscript.TestScript, _ bool, args []string) {
				if len(args) == 1 && args[0] == "migrated" {
					script.Setenv("DATABASE_URL", pgtest.Migrated(t))
					return
				}
				script.Setenv("DATABASE_URL", pgtest.Empty(t))
			},
			"sql": func(script *testscript.TestScript, _ bool, args []string) {
				script.Check(runSQL(script.Getenv("DATABASE_URL"), strings.Join(args, " ")))
			},
			"login": func(script *testscript.TestScript, _ bool, _ []string) {
				name, loginURL := newLogin(t, script.Getenv("DATABASE_URL"))
				script.Setenv("LOGIN", name)
				script.Setenv("LOGIN_URL", loginURL)
			},
			"libpq": func(script *testscript.TestScript, _ bool, _ []string) {
				conn, err := pgx.ParseConfig(script.Getenv("DATABASE_URL"))
				script.Check(err)
				for name, value := range map[string]string{"DATABASE_URL": "", "PGHOST": conn.Host, "PGPORT": strconv.Itoa(int(conn.Port)),
					"PGUSER": conn.User, "PGPASSWORD": conn.Password, "PGDATABASE": conn.Database, "PGSSLMODE": "disable"} {
					script.Setenv(name, value)
				}
			},
			"silentserver": func(script *testscript.TestScript, _ bool, _ []string) {
				script.Setenv("SILENT_URL", "postgres://u:hush@"+silentServer(t)+"/d?sslmode=disable")
			},
			"exits": func(script *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				script.Check(err)
				start := time.Now()
				got := 0
				err = script.Exec("pgbell", args[1:]...)
				var exited *exec.ExitError
				if errors.As(err, &exited) {
					got = exited.ExitCode()
				} else {
					script.Check(err)
				}
				if got != want {
					script.Fatalf("exit code %d, want %d", got, want)
				}
				if took := time.Since(start); took > 10*time.Second {
					script.Fatalf("it took %s", took)
				}
			},
		},
	})
}

// silentServer returns its address. The kernel accepts; nobody reads.
func silentServer(t *testing.T) string {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	return silent.Addr().String()
}

func runSQL(databaseURL, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

var logins atomic.Int64

// newLogin makes a role with the password "hush", dropped when the test ends. Roles belong to the whole server.
func newLogin(t *testing.T, databaseURL string) (name, loginURL string) {
	t.Helper()
	name = fmt.Sprintf("pgbell_test_%d_%d", os.Getpid(), logins.Add(1))
	if err := runSQL(databaseURL, "CREATE ROLE "+name+" LOGIN PASSWORD 'hush'"); err != nil {
		t.Fatalf("create role: %v", err)
	}
	t.Cleanup(func() {
		if err := runSQL(databaseURL, "DROP OWNED BY "+name+"; DROP ROLE "+name); err != nil {
			t.Logf("drop role: %v", err)
		}
	})
	parsed, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword(name, "hush")
	return name, parsed.String()
}
