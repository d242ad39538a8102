// Command matrix runs the tests once for each entry of a list, and prints a table of how each run went:
//
//	matrix 14,18,pgbouncer withpostgres go test -json ./...
//
// An entry is a major version of Postgres, which the command finds in POSTGRES, or pgbouncer: any version, behind a
// PgBouncer in transaction mode, for which the command finds TEST_POOLED set. The command writes the events of go test
// -json. What failed tests said is shown at once; the exit code is 1 if any run failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pooled = "pgbouncer"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: matrix ENTRY[,ENTRY...] COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	passed, err := run(ctx, os.Stdout, strings.Split(os.Args[1], ","), os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

// run runs the command for each entry, whether or not those before it passed.
func run(ctx context.Context, out io.Writer, entries, command []string) (passed bool, err error) {
	for _, entry := range entries {
		if _, err := environ(entry); err != nil {
			return false, err
		}
	}
	passed = true
	var rows []row
	for _, entry := range entries {
		fmt.Fprintf(out, "-- %s\n", entry)
		one := runOne(ctx, out, entry, command)
		rows = append(rows, one)
		passed = passed && one.err == nil && one.failed == 0
		if ctx.Err() != nil {
			break
		}
	}
	printTable(out, rows)
	return passed, ctx.Err()
}

func environ(entry string) ([]string, error) {
	if entry == pooled {
		return []string{"TEST_POOLED=1"}, nil
	}
	if major, err := strconv.Atoi(entry); err != nil || major < 1 {
		return nil, fmt.Errorf("%q is neither a major version of Postgres nor %s", entry, pooled)
	}
	return []string{"POSTGRES=" + entry, "TEST_POOLED="}, nil
}

func runOne(ctx context.Context, out io.Writer, entry string, command []string) row {
	began := time.Now()
	one := row{entry: entry}
	variables, err := environ(entry)
	if err != nil {
		one.err = err
		return one
	}
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Env = append(os.Environ(), variables...)
	process.Stderr = os.Stderr
	// It gets time to end in order.
	process.Cancel = func() error { return process.Process.Signal(os.Interrupt) }
	process.WaitDelay = 30 * time.Second
	events, err := process.StdoutPipe()
	if err == nil {
		err = process.Start()
	}
	if err != nil {
		one.err = err
		return one
	}
	readErr := one.read(events, out)
	one.err = errors.Join(readErr, process.Wait())
	one.took = time.Since(began)
	return one
}

func printTable(out io.Writer, rows []row) {
	fmt.Fprintf(out, "\n%-10s %9s %7s %7s %8s %8s\n", "postgres", "packages", "passed", "failed", "skipped", "seconds")
	for _, one := range rows {
		verdict := ""
		if one.err != nil {
			verdict = "  " + one.err.Error()
		}
		fmt.Fprintf(out, "%-10s %9d %7d %7d %8d %8.0f%s\n", one.entry, one.packages, one.passed, one.failed, one.skipped, one.took.Seconds(), verdict)
	}
}
