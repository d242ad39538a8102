// Command withpostgres runs a command with a throwaway Postgres server and stops the server after it:
//
//	withpostgres go test ./...
//
// The command finds the server's URL in TEST_DATABASE_URL, as a superuser. If that is set already, no server is started.
// The exit code is the command's own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/internal/postgres"
)

const variable = "TEST_DATABASE_URL"

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
	if os.Getenv(variable) == "" {
		server, startErr := postgres.Start(ctx, postgres.Options{})
		if startErr != nil {
			return 1, fmt.Errorf("start postgres: %w", startErr)
		}
		defer func() {
			if stopErr := server.Stop(); stopErr != nil {
				code, err = max(code, 1), errors.Join(err, fmt.Errorf("stop postgres: %w", stopErr))
			}
		}()
		command.Env = append(os.Environ(), variable+"="+server.URL("postgres"))
	}
	err = command.Run()
	if command.ProcessState == nil {
		return 127, err
	}
	if code = command.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 1, fmt.Errorf("%s: %w", args[0], err)
}
