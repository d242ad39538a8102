package subprocess_test

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// The kernel kills the child, and the guard, as soon as it can, what the child has started.
func TestKernelKillsTheChildEvenIfTheGuardHangs(t *testing.T) {
	t.Parallel()
	dir := home(t)
	sidecar, guards := startSidecar(t, dir)
	guard := next(t, guards)
	eventually(t, 20*time.Second, "the job's processes are there", func() bool { return len(settled(dir)) == 2 })
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(guard, syscall.SIGCONT) })
	if err := sidecar.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sidecar.Wait()
	for pid, mode := range settled(dir) {
		if mode == "stubborn" {
			eventually(t, time.Second, "the child is gone", func() bool { return !alive(pid) })
		} else if !alive(pid) {
			t.Error("the grandchild died too: this test shows nothing about the guard")
		}
	}
	if err := syscall.Kill(guard, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expectGone(t, dir, 2)
	eventually(t, 5*time.Second, "the guard is gone", func() bool { return !alive(guard) })
}

// A guard process that is woken late may find a group's number given to a stranger.
func TestGuardSparesOtherSessions(t *testing.T) {
	t.Parallel()
	dir := home(t)
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := os.StartProcess(path, []string{path}, &os.ProcAttr{
		Env: append(os.Environ(), modeEnv+"=leaf", dirEnv+"="+dir), Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.StartProcess(path, []string{path}, &os.ProcAttr{
		Env: append(os.Environ(), modeEnv+"=leaf", dirEnv+"="+dir), Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "both are there", func() bool { return len(settled(dir)) == 2 })
	guardUntilEOF(t, stranger.Pid, own.Pid)
	if state, err := own.Wait(); err != nil || state.Success() {
		t.Errorf("own group: %v, %v", state, err)
	}
	if !alive(stranger.Pid) {
		t.Error("the stranger was killed")
	}
	_ = stranger.Kill()
	_, _ = stranger.Wait()
}
