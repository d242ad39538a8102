//go:build darwin || freebsd || netbsd || openbsd

package subprocess

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitExit returns when the child pid is dead, and leaves it to be reaped. (waitid with WNOWAIT isn't to be trusted on
// these systems: golang/go#19314.)
func awaitExit(pid int) error {
	queue, err := unix.Kqueue()
	if err != nil {
		return os.NewSyscallError("kqueue", err)
	}
	defer func() { _ = unix.Close(queue) }()
	unix.CloseOnExec(queue)
	changes, events := make([]unix.Kevent_t, 1), make([]unix.Kevent_t, 1)
	unix.SetKevent(&changes[0], pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	changes[0].Fflags = unix.NOTE_EXIT
	for {
		n, err := unix.Kevent(queue, changes, events, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("kevent", err)
		case n == 0:
		case events[0].Flags&unix.EV_ERROR != 0 && syscall.Errno(events[0].Data) != unix.ESRCH:
			return os.NewSyscallError("kevent", syscall.Errno(events[0].Data))
		default:
			return nil // exited, now or (ESRCH) before it was watched
		}
	}
}

// dieWithThread does nothing: only the guard ends the children here.
func dieWithThread(*syscall.SysProcAttr) {}

func ownExecutable() (string, error) { return os.Executable() }

// shrink does nothing: pipes start small here.
func shrink(*os.File) {}

func nameProcess(string) {}

// reapOrphans does nothing: another process is init here.
func reapOrphans(int) {}
