package main

import (
	"bufio"
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
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// roleVariable has the test binary be the command itself ("main"), or one that it runs.
const roleVariable = "WITHPOSTGRES_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	switch role {
	case "main":
		_ = os.Setenv(roleVariable, os.Getenv(roleVariable+"_NEXT"))
		main()
	case "postmaster", "wait":
		if err := report(role == "wait"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// report prints the process id of the server, and then waits for an interrupt if asked to.
func report(wait bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	conn, err := pgx.Connect(ctx, os.Getenv("TEST_DATABASE_URL"))
	if err != nil {
		return err
	}
	var pid string
	if err := conn.QueryRow(ctx, "SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)").Scan(&pid); err != nil {
		return err
	}
	fmt.Println(pid)
	if wait {
		<-ctx.Done()
		fmt.Println("interrupted")
	}
	return conn.Close(context.WithoutCancel(ctx))
}

func TestServerRunsAsLongAsTheCommand(t *testing.T) {
	t.Parallel()
	output, err := withPostgres(t, "postmaster", "", os.Args[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	if pid := number(t, string(output)); alive(pid) {
		t.Errorf("postmaster %d outlived the command", pid)
	}
}

func TestExitCodeIsTheCommands(t *testing.T) {
	t.Parallel()
	for code, command := range map[int][]string{
		0: {"--", "true"}, 7: {"sh", "-c", "exit 7"}, 127: {"no-such-command-anywhere"}, 1: {"sh", "-c", "kill -9 $$"}, 2: {},
	} {
		err := withPostgres(t, "", "postgres://given", command...).Run()
		var exit *exec.ExitError
		got := 0
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Errorf("%q: exit code %d, want %d", command, got, code)
		}
	}
}

func TestGivenServerIsUsed(t *testing.T) {
	t.Parallel()
	output, err := withPostgres(t, "", "postgres://given", "sh", "-c", "echo $TEST_DATABASE_URL").Output()
	if err != nil || string(output) != "postgres://given\n" {
		t.Errorf("the command saw %q, %v", output, err)
	}
}

func TestPoolerStandsBeforeTheServer(t *testing.T) {
	t.Parallel()
	command := withPostgres(t, "", "", "sh", "-c", `test "$TEST_POOLER_URL" != "$TEST_DATABASE_URL" && test -x "$PG_BIN/postgres" && echo $TEST_POOLER_URL`)
	command.Env = append(command.Env, "TEST_POOLED=1")
	output, err := command.Output()
	if err != nil || !strings.HasPrefix(string(output), "postgres://postgres:") {
		t.Errorf("the command saw %q, %v", output, err)
	}
}

func TestMajorIsChecked(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]*exec.Cmd{
		"names a major version": withPostgres(t, "", "", "true"), "both set": withPostgres(t, "", "postgres://given", "true"),
	} {
		command.Env = append(command.Env, "POSTGRES=new")
		var said strings.Builder
		command.Stderr = &said
		if err := command.Run(); err == nil || !strings.Contains(said.String(), name) {
			t.Errorf("it said %q, %v; want that it fails with %q", &said, err, name)
		}
	}
}

func TestSignalEndsTheCommandAndThenTheServer(t *testing.T) {
	t.Parallel()
	for _, sent := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		command := withPostgres(t, "wait", "", os.Args[0])
		stdout, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stdout)
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("read %q: %v", line, err)
		}
		pid := number(t, line)
		if err := command.Process.Signal(sent); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil || string(rest) != "interrupted\n" {
			t.Errorf("%v: the command said %q, %v", sent, rest, err)
		}
		_ = command.Wait() // its code is the command's own
		if alive(pid) {
			t.Errorf("%v: postmaster %d outlived it", sent, pid)
		}
	}
}

func withPostgres(t *testing.T, role, url string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, os.Args[0], args...)
	command.Env = append(os.Environ(), roleVariable+"=main", roleVariable+"_NEXT="+role, "TEST_DATABASE_URL="+url, "TEST_POOLED=", "POSTGRES=")
	command.Stderr = t.Output()
	return command
}

func number(t *testing.T, text string) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
