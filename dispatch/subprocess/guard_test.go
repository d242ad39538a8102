package subprocess_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
)

// startGuard returns a running Guard, the pids of its processes as they come, and how to end it.
func startGuard(t *testing.T) (guard *subprocess.Guard, pids <-chan int, end func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	guard, err = subprocess.NewGuard(subprocess.GuardConfig{Logger: zerolog.New(w)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- guard.Run(ctx) }()
	found := guardPIDs(r)
	end = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run hasn't returned")
		}
		_ = w.Close()
		for range found { // until its reader has ended
		}
		_ = r.Close()
	}
	return guard, found, end
}

// guardPIDs reads a Guard's log until its end.
func guardPIDs(log *os.File) <-chan int {
	pids := make(chan int, 100)
	go func() {
		defer close(pids)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var line struct {
				Message string
				PID     int
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && strings.HasSuffix(line.Message, "is running") {
				pids <- line.PID
			}
		}
	}()
	return pids
}

func next(t *testing.T, pids <-chan int) int {
	t.Helper()
	select {
	case pid := <-pids:
		return pid
	case <-time.After(20 * time.Second):
		t.Fatal("no guard process")
		return 0
	}
}

// startSidecar starts a process that runs one job, and returns the pids of its guard processes as they come.
func startSidecar(t *testing.T, dir string) (sidecar *exec.Cmd, guards <-chan int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sidecar = exec.Command(path)
	sidecar.Env = append(os.Environ(), modeEnv+"=sidecar", dirEnv+"="+dir)
	sidecar.Stdout, sidecar.Stderr = w, os.Stderr
	if err := sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	guards = guardPIDs(r)
	t.Cleanup(func() {
		_ = sidecar.Process.Kill()
		_ = sidecar.Wait()
		for range guards { // the log ends with the sidecar
		}
		_ = r.Close()
	})
	return sidecar, guards
}

// guardUntilEOF runs a guard process of this process's session, which is told of pgids and left alone.
func guardUntilEOF(t *testing.T, pgids ...int) {
	t.Helper()
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var orders strings.Builder
	for _, pgid := range pgids {
		fmt.Fprintf(&orders, "+%d\n", pgid)
	}
	guard := &exec.Cmd{
		Path: path, Args: []string{"pgbell-guard"}, Stdin: strings.NewReader(orders.String()),
		Env: []string{fmt.Sprintf("PGBELL_GUARD_OF_SESSION=%d", session)},
	}
	if out, err := guard.Output(); err != nil || string(out) != "guarding\n" {
		t.Fatalf("guard process: %q, %v", out, err)
	}
}

func TestGuardKillsWhatASIGKILLedSidecarLeaves(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, guard int, guards <-chan int) (now int){
		"undisturbed": func(_ *testing.T, guard int, _ <-chan int) int { return guard },
		"guard was killed before": func(t *testing.T, guard int, guards <-chan int) int {
			for range 3 {
				if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				guard = next(t, guards)
			}
			return guard
		},
		"guard was asked to stop": func(t *testing.T, guard int, _ <-chan int) int {
			for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
				if err := syscall.Kill(guard, sig); err != nil {
					t.Fatal(err)
				}
			}
			return guard
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := home(t)
			sidecar, guards := startSidecar(t, dir)
			guard := next(t, guards)
			eventually(t, 20*time.Second, "the job's processes are there", func() bool { return len(settled(dir)) == 2 })
			guard = harm(t, guard, guards)
			if !alive(guard) {
				t.Error("there is no guard")
			}
			for pid, mode := range settled(dir) {
				if !alive(pid) {
					t.Errorf("%s died before its sidecar", mode)
				}
			}
			if err := sidecar.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := sidecar.Wait(); !errors.As(err, &exit) || exit.Success() {
				t.Errorf("sidecar: %v", err)
			}
			expectGone(t, dir, 2)
			eventually(t, 5*time.Second, "the guard is gone", func() bool { return !alive(guard) })
		})
	}
}

func TestGuardServesManyChildrenAtOnceAndComesBack(t *testing.T) {
	t.Parallel()
	guard, guards, end := startGuard(t)
	defer end()
	handler, err := subprocess.New(self("echo", subprocess.Config{Guard: guard}))
	if err != nil {
		t.Fatal(err)
	}
	const n = 30
	results := make(chan dispatch.Result, n)
	for range n {
		go func() { results <- handler.Run(context.Background(), dispatch.Job{Payload: []byte(`[1]`)}) }()
	}
	if err := syscall.Kill(next(t, guards), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	for range n {
		if got := <-results; got.Outcome != dispatch.OutcomeDone || string(got.Output) != `[1]` {
			t.Errorf("got %v, %s: %v", got.Outcome, got.Output, got.Err)
		}
	}
	next(t, guards)
}

func TestGuardEndsAfterTheLastChild(t *testing.T) {
	t.Parallel()
	dir := home(t)
	guard, err := subprocess.NewGuard(subprocess.GuardConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- guard.Run(ctx) }()
	<-guard.Ready()
	handler, err := subprocess.New(self("leaf", subprocess.Config{Guard: guard, Env: []string{dirEnv + "=" + dir}}))
	if err != nil {
		t.Fatal(err)
	}
	jobCtx, stop := context.WithCancel(t.Context())
	results := make(chan dispatch.Result, 1)
	go func() { results <- handler.Run(jobCtx, dispatch.Job{}) }()
	eventually(t, 20*time.Second, "the child is there", func() bool { return len(settled(dir)) == 1 })

	cancel()
	// Refused once Run has noticed; it is still there, since a child is.
	eventually(t, 5*time.Second, "no more children are started", func() bool {
		short, done := context.WithTimeout(t.Context(), 2*time.Second)
		defer done()
		return handler.Run(short, dispatch.Job{}).Outcome == dispatch.OutcomeUnavailable
	})
	select {
	case err := <-ended:
		t.Fatalf("Run returned before the last child ended: %v", err)
	default:
	}
	stop()
	if got := <-results; got.Outcome != dispatch.OutcomeRetry {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := handler.Run(t.Context(), dispatch.Job{}); got.Outcome != dispatch.OutcomeUnavailable {
		t.Errorf("after the end: got %v: %v", got.Outcome, got.Err)
	}
	if err := guard.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
}

func TestNothingStartsWithoutAGuardProcess(t *testing.T) {
	t.Parallel()
	guard, err := subprocess.NewGuard(subprocess.GuardConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, self("say", subprocess.Config{Guard: guard}, "", "", "0"), dispatch.Job{})
	if got.Outcome != dispatch.OutcomeUnavailable || !strings.Contains(errorText(got), "guard process isn't running") {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
}

func TestStoppedGuardIsReplaced(t *testing.T) {
	t.Parallel()
	guard, guards, end := startGuard(t)
	defer end()
	first := next(t, guards)
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	handler, err := subprocess.New(subprocess.Config{Command: []string{"true"}, Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	// Its pipe is full at last.
	second := 0
	for range 10000 {
		if got := handler.Run(t.Context(), dispatch.Job{}); got.Outcome != dispatch.OutcomeDone {
			t.Fatalf("got %v: %v", got.Outcome, got.Err)
		}
		select {
		case second = <-guards:
		default:
			continue
		}
		break
	}
	if second == 0 || alive(first) {
		t.Errorf("guard processes %d, %d", first, second)
	}
}
