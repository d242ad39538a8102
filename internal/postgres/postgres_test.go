package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/postgres"
)

// parentVariable has the test binary be a process that starts a server in the folder named and never stops it.
const parentVariable = "PGBELL_TEST_PARENT_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentVariable); dir != "" {
		os.Exit(careless(dir))
	}
	goleak.VerifyTestMain(m)
}

func careless(dir string) int {
	server, err := postgres.Start(context.Background(), postgres.Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(server.PID(), filepath.Dir(server.Log()))
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	return 0
}

func TestServerKeepsItsDataOverHaltAndLaunch(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{Settings: map[string]string{"work_mem": "7MB", "cluster_name": "o'clock"}})
	query(t, server, "CREATE TABLE kept AS SELECT 42 AS n")
	if got := query(t, server, "SELECT current_setting('work_mem') || current_setting('cluster_name')"); got != "7MBo'clock" {
		t.Errorf("settings are %q", got)
	}
	port, pid := server.Port(), server.PID()

	if err := server.Halt(postgres.Fast); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || server.PID() != 0 {
		t.Errorf("postmaster %d lives after Halt (PID() = %d)", pid, server.PID())
	}
	if conn, err := pgx.Connect(t.Context(), server.URL("postgres")); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a halted server accepted a connection")
	}

	if err := server.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.Port() != port {
		t.Errorf("port was %d, is %d", port, server.Port())
	}
	if got := query(t, server, "SELECT n::text FROM kept"); got != "42" {
		t.Errorf("kept %q, want 42", got)
	}
}

func TestDurableServerRecoversFromACrash(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{Durable: true})
	query(t, server, "CREATE TABLE kept (n int)")
	query(t, server, "INSERT INTO kept VALUES (42)")
	if got := query(t, server, "SELECT current_setting('fsync') || current_setting('synchronous_commit')"); got != "onon" {
		t.Errorf("fsync and synchronous_commit are %q", got)
	}
	if err := server.Halt(postgres.Immediate); err != nil {
		t.Fatal(err)
	}
	if err := server.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, server, "SELECT n::text FROM kept"); got != "42" {
		t.Errorf("kept %q, want 42", got)
	}
	log, err := os.ReadFile(server.Log())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "was not properly shut down") {
		t.Errorf("Immediate was no crash; the log says:\n%s", log)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{})
	dir, pid := filepath.Dir(server.Log()), server.PID()
	backend, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backend.Close(context.Background()) }()
	backendPID := int(backend.PgConn().PID())
	if !alive(pid) || !alive(backendPID) {
		t.Fatalf("postmaster %d and backend %d should live", pid, backendPID)
	}
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if alive(pid) || alive(backendPID) {
		t.Errorf("after Stop: postmaster alive %t, backend alive %t", alive(pid), alive(backendPID))
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat %s: %v, want that it is gone", dir, err)
	}
}

func TestBadSettingIsAnErrorAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := shared(t)
	_, err := postgres.Start(t.Context(), postgres.Options{Dir: dir, Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("error %v, want one that names the setting", err)
	}
	assertEmpty(t, dir)
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := shared(t)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond) // in the middle of initdb
	defer cancel()
	if _, err := postgres.Start(ctx, postgres.Options{Dir: dir}); err == nil {
		t.Error("Start went through")
	}
	assertEmpty(t, dir)
}

// A launch waits for a port that somebody has for a moment.
func TestLaunchWaitsForItsPort(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{})
	if err := server.Halt(postgres.Fast); err != nil {
		t.Fatal(err)
	}
	thief := listen(t, server.Port())
	launched := make(chan error, 1)
	go func() { launched <- server.Launch(t.Context()) }()
	waitFor(t, "a first try that meets the thief", func() bool {
		log, err := os.ReadFile(server.Log())
		return err == nil && strings.Contains(string(log), "Address already in use")
	})
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-launched; err != nil {
		t.Fatal(err)
	}
	query(t, server, "SELECT 'up'")
}

func TestKilledParentLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	dir := shared(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"="+dir)
	parent.Stderr = os.Stderr
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("child said %q: %v", line, err)
	}
	pidText, orphaned, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(pidText)
	if err != nil || !alive(pid) {
		t.Fatalf("no living postmaster in %q (%v)", line, err)
	}

	// While its owner lives, a folder is nobody else's.
	other := start(t, postgres.Options{Dir: dir})
	if _, err := os.Stat(orphaned); err != nil {
		t.Fatalf("the living parent's folder was removed: %v", err)
	}
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}

	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as wanted
	if endsWithParent {
		waitFor(t, "the postmaster's end with its parent", func() bool { return !alive(pid) })
	}
	start(t, postgres.Options{Dir: dir})
	if _, err := os.Stat(orphaned); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat %s: %v, want that the next Start removed it", orphaned, err)
	}
	if !endsWithParent {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // it would notice within a minute
	}
}

func start(t *testing.T, options postgres.Options) *postgres.Server {
	t.Helper()
	server, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// shared is a temporary folder that every user can enter; t.TempDir is closed to others.
func shared(t *testing.T) string {
	t.Helper()
	parent, err := postgres.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "pgbell-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}

func query(t *testing.T, server *postgres.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var text string
	for rows.Next() {
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// alive: a zombie counts, but nothing here leaves one for long.
func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
