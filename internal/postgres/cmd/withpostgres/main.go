// Command withpostgres runs a command with a throwaway Postgres server and stops the server after it:
//
//	withpostgres go test ./...
//	POSTGRES=17 TEST_POOLED=1 withpostgres go test ./dispatch
//
// The command finds the server's URL in TEST_DATABASE_URL, as a superuser, and its binaries in PG_BIN. If
// TEST_DATABASE_URL is set already, no server is started. POSTGRES names the major version that is wanted. With
// TEST_POOLED, a PgBouncer in transaction mode stands before the server, and TEST_POOLER_URL leads through it.
// The exit code is the command's own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/internal/postgres"
)

const (
	urlVariable    = "TEST_DATABASE_URL"
	majorVariable  = "POSTGRES"
	pooledVariable = "TEST_POOLED"
	poolerVariable = "TEST_POOLER_URL"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(os.Stderr, "usage: withpostgres COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	command := exec.CommandContext(ctx, args[0], args[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The command gets time to end in order: go test passes the signal on to the tests.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 20 * time.Second
	environ, stopServers, err := serve(ctx)
	if err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := stopServers(); stopErr != nil {
			code, err = max(code, 1), errors.Join(err, stopErr)
		}
	}()
	command.Env = append(os.Environ(), environ...)
	err = command.Run()
	if command.ProcessState == nil {
		return 127, err
	}
	if code = command.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 1, fmt.Errorf("%s: %w", args[0], err)
}

// serve starts what the environment asks for, and returns what the command finds it by.
func serve(ctx context.Context) (environ []string, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, each := range slices.Backward(stops) {
			errs = append(errs, each())
		}
		return errors.Join(errs...)
	}
	url := os.Getenv(urlVariable)
	if url == "" {
		major, err := wantedMajor()
		if err != nil {
			return nil, nil, err
		}
		server, err := postgres.Start(ctx, postgres.Options{Major: major})
		if err != nil {
			return nil, nil, fmt.Errorf("start postgres: %w", err)
		}
		stops = append(stops, server.Stop)
		url = server.URL("postgres")
		// Tests that start servers of their own mean the same version.
		environ = append(environ, urlVariable+"="+url, "PG_BIN="+server.Bin())
	} else if os.Getenv(majorVariable) != "" {
		return nil, nil, fmt.Errorf("%s and %s are both set: the version is that of the server given", majorVariable, urlVariable)
	}
	if os.Getenv(pooledVariable) != "" {
		pooler, err := postgres.StartPooler(ctx, url, postgres.PoolerOptions{})
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("start pgbouncer: %w", err), stop())
		}
		stops = append(stops, pooler.Stop)
		through, err := pooler.URL(url)
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		environ = append(environ, poolerVariable+"="+through)
	}
	return environ, stop, nil
}

// wantedMajor is 0 if any version will do.
func wantedMajor() (int, error) {
	text := os.Getenv(majorVariable)
	if text == "" {
		return 0, nil
	}
	major, err := strconv.Atoi(text)
	if err != nil || major < 1 {
		return 0, fmt.Errorf("%s is %q, but it names a major version, such as 17", majorVariable, text)
	}
	return major, nil
}
