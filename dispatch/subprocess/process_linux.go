package subprocess

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// awaitExit returns when the child pid is dead, and leaves it to be reaped.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("waitid", err)
		}
	}
}

// dieWithThread makes the kernel kill the child when the thread that starts it ends: the thread, not the process
// (golang/go#27505). The child's own children don't inherit it.
func dieWithThread(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// ownExecutable is the running program even if its file was replaced meanwhile.
func ownExecutable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// shrink makes a pipe as small as it can be, so that a reader who doesn't read is noticed soon.
func shrink(pipe *os.File) {
	if conn, err := pipe.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 0) })
	}
}

// nameProcess shows in ps and top. Without /proc it stays as it is.
func nameProcess(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

// reapOrphans does what init does, where this process is init: in a container, or as a subreaper, the killed members of a
// group whose leader is reaped become its children.
func reapOrphans(pgid int) {
	if os.Getpid() != 1 {
		var subreaper int32
		err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
		if err != nil || subreaper == 0 {
			return
		}
	}
	// They were sent SIGKILL: it's a matter of moments, if there are any.
	for pause := 100 * time.Microsecond; pause < time.Second; {
		switch pid, err := syscall.Wait4(-pgid, nil, syscall.WNOHANG, nil); {
		case errors.Is(err, syscall.EINTR) || pid > 0:
		case err != nil:
			return
		default:
			<-time.After(pause)
			pause *= 2
		}
	}
}
