package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/demo"
)

// demoProcess is a real `pgbell demo` with a temporary folder of its own.
type demoProcess struct {
	*exec.Cmd
	folder string
	stdout io.Reader
	stderr bytes.Buffer
}

func startDemo(t *testing.T, args ...string) *demoProcess {
	t.Helper()
	// Not t.TempDir: as root, the server runs as another user, who must get there.
	folder, err := os.MkdirTemp("", "pgbell-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &demoProcess{Cmd: exec.Command(binary, append([]string{"demo"}, args...)...), folder: folder}
	p.Env = append(os.Environ(), "TMPDIR="+folder, "DATABASE_URL=postgres://not.for.a.demo.invalid/x")
	p.Stderr = &p.stderr
	if p.stdout, err = p.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

// postmaster is the process id of the demo's server.
func (p *demoProcess) postmaster(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.folder, "*", "data", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Fatalf("no server in the demo's folder: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// readUntil reads lines up to one that contains text.
func readUntil(t *testing.T, lines *bufio.Scanner, text string) {
	t.Helper()
	var read []string
	for lines.Scan() {
		if read = append(read, lines.Text()); strings.Contains(lines.Text(), text) {
			return
		}
	}
	t.Fatalf("%q didn't come in %q: %v", text, read, lines.Err())
}

func (p *demoProcess) exitCode(t *testing.T) int {
	t.Helper()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// leftNothing: the folder is empty, and the server, with all that it has started, is gone.
func (p *demoProcess) leftNothing(t *testing.T, postmaster int) {
	t.Helper()
	left, err := os.ReadDir(p.folder)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	if err := syscall.Kill(postmaster, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the server still runs: %v", err)
	}
	// The backends and the guard end by themselves, when they see that the other side is gone.
	deadline := time.Now().Add(10 * time.Second)
	for {
		processes := processesNaming(p.folder)
		if len(processes) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes that are left: %q", processes)
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// processesNaming finds processes with a path in their environment or command line. Only Linux tells.
func processesNaming(path string) []string {
	var found []string
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		command, _ := os.ReadFile(filepath.Join(entry, "cmdline")) // it may have ended
		environment, _ := os.ReadFile(filepath.Join(entry, "environ"))
		if bytes.Contains(command, []byte(path)) || bytes.Contains(environment, []byte(path)) {
			found = append(found, entry+" "+string(command))
		}
	}
	return found
}

func TestDemoIsInterrupted(t *testing.T) {
	t.Parallel()
	p := startDemo(t)
	lines := bufio.NewScanner(p.stdout)
	readUntil(t, lines, `-c "INSERT INTO jobs (type, payload) VALUES ('hello', '{\"name\":\"you\"}')"`)
	readUntil(t, lines, "first job completed")
	postmaster := p.postmaster(t)
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	readUntil(t, lines, "each ended as it should")
	if code := p.exitCode(t); code != exitOK || p.stderr.Len() != 0 {
		t.Errorf("exit code %d, stderr %q", code, p.stderr.String())
	}
	p.leftNothing(t, postmaster)
}

func TestDemoIsInterruptedTwice(t *testing.T) {
	t.Parallel()
	p := startDemo(t)
	lines := bufio.NewScanner(p.stdout)
	readUntil(t, lines, "first job completed")
	postmaster := p.postmaster(t)
	interrupt := func() {
		if err := p.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	interrupt()
	readUntil(t, lines, "stopping")
	interrupt()
	began := time.Now()
	_, _ = io.Copy(io.Discard, p.stdout)
	if code := p.exitCode(t); code != exitSignal+int(syscall.SIGINT) || time.Since(began) > 5*time.Second {
		t.Errorf("exit code %d after %s, stderr %q", code, time.Since(began), p.stderr.String())
	}
	p.leftNothing(t, postmaster)
}

func TestDemoPrintsOneObject(t *testing.T) {
	t.Parallel()
	p := startDemo(t, "--for", "1s", "--rate", "20", "--json")
	output, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(t); code != exitOK || p.stderr.Len() != 0 {
		t.Errorf("exit code %d, stderr %q", code, p.stderr.String())
	}
	decoder := json.NewDecoder(bytes.NewReader(output))
	decoder.DisallowUnknownFields()
	var summary demo.Summary
	if err := decoder.Decode(&summary); err != nil || decoder.More() {
		t.Fatalf("not one object: %q: %v", output, err)
	}
	if !summary.OK || summary.Inserted < 5 || summary.Inserted != summary.Completed+summary.Failed || summary.P99 <= 0 {
		t.Errorf("%+v", summary)
	}
	var keys map[string]any
	if err := json.Unmarshal(output, &keys); err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		if !strings.Contains(demoHelp, key) {
			t.Errorf("the help doesn't tell of %s", key)
		}
	}
}

func TestDemoUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--for", "1ms"}, exitUsage, "error: for: 1ms is less than a second\nhint: "},
		{[]string{"--rate", "x"}, exitUsage, "error: invalid argument \"x\" for \"--rate\""},
		{[]string{"--log-level", "loud"}, exitUsage, "log.level"},
		{[]string{"--database-url", "postgres://u:secret@127.0.0.1:1/x", "--schema", "public"}, exitUsage, "error: schema: public can't be dropped"},
		{[]string{"--database-url", "postgres://u:secret@127.0.0.1:1/x"}, exitDatabase, "127.0.0.1"},
	} {
		p := startDemo(t, test.args...)
		_, _ = io.Copy(io.Discard, p.stdout)
		if code := p.exitCode(t); code != test.code || !strings.Contains(p.stderr.String(), test.want) || strings.Contains(p.stderr.String(), "secret") {
			t.Errorf("%q: exit code %d, stderr %q; want %d, %q", test.args, code, p.stderr.String(), test.code, test.want)
		}
	}
}
