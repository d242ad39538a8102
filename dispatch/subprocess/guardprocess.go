package subprocess

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	guardName = "pgbell-guard" // the first argument of the guard process
	guardEnv  = "PGBELL_GUARD_OF_SESSION"
	guardHi   = "guarding\n" // what it says when it has become one

	handshakeTimeout = 10 * time.Second
	orderTimeout     = time.Second // of a write to a pipe that is never full while it is read
	farewellTimeout  = 2 * time.Second

	killRounds = 50
	killPause  = 20 * time.Millisecond
)

// guardProcess is the guard process as its sidecar sees it.
type guardProcess struct {
	process *os.Process
	orders  *os.File // the pipe whose end says that the sidecar has died
	died    <-chan struct{}
}

// spawn starts this program again as a guard process, and waits for its answer.
func spawn() (*guardProcess, error) {
	path, err := ownExecutable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		return nil, os.NewSyscallError("getsid", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	stdin, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = stdin.Close() }()
	shrink(orders)
	answer, stdout, err := os.Pipe()
	if err != nil {
		_ = orders.Close()
		return nil, err
	}
	defer func() { _ = answer.Close() }()

	process, err := os.StartProcess(path, []string{guardName}, &os.ProcAttr{
		Dir: "/", // no mount is kept busy
		// Nothing of the sidecar's environment: no secret lives in a second place.
		Env:   []string{guardEnv + "=" + strconv.Itoa(session), "GOMAXPROCS=1"},
		Files: []*os.File{stdin, stdout, null},
		Sys:   &syscall.SysProcAttr{Setsid: true}, // away from the signals of a terminal
	})
	_ = stdout.Close()
	if err != nil {
		_ = orders.Close()
		return nil, err
	}
	died := make(chan struct{})
	p := &guardProcess{process: process, orders: orders, died: died}
	go func() { // until the process has died, which dismiss sees to
		defer close(died)
		_, _ = process.Wait()
	}()
	if err := handshake(answer); err != nil {
		_ = process.Kill()
		p.dismiss()
		return nil, err
	}
	return p, nil
}

// handshake makes sure that the program has become a guard, and not a second sidecar.
func handshake(answer *os.File) error {
	_ = answer.SetReadDeadline(time.Now().Add(handshakeTimeout))
	line, err := bufio.NewReader(io.LimitReader(answer, int64(len(guardHi)))).ReadString('\n')
	switch {
	case line == guardHi:
		return nil
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it doesn't answer as a guard: call subprocess.GuardMain first thing in main")
	default:
		return fmt.Errorf("it doesn't answer as a guard (does main call subprocess.GuardMain first thing?): %w", err)
	}
}

// tell may be called for nil. A guard process that doesn't read is as good as none: it is killed, and Run starts another,
// which is told everything.
func (p *guardProcess) tell(sign byte, pgid int) {
	if p == nil {
		return
	}
	line := append(strconv.AppendInt([]byte{sign}, int64(pgid), 10), '\n')
	_ = p.orders.SetWriteDeadline(time.Now().Add(orderTimeout))
	if _, err := p.orders.Write(line); err != nil {
		_ = p.process.Kill()
	}
}

// dismiss returns when the process has ended, which it does at the end of its orders.
func (p *guardProcess) dismiss() {
	_ = p.orders.Close()
	timer := time.NewTimer(farewellTimeout)
	defer timer.Stop()
	select {
	case <-p.died:
	case <-timer.C:
		_ = p.process.Kill()
		<-p.died
	}
}

// GuardMain makes this process a Guard's second process, if it was started as that, and never returns then; otherwise it
// does nothing. Call it first thing in main, and in TestMain of tests that use a Guard.
func GuardMain() {
	if len(os.Args) != 1 || os.Args[0] != guardName {
		return
	}
	session, err := strconv.Atoi(os.Getenv(guardEnv))
	if err != nil {
		return
	}
	// Whoever stops a whole service, and signals each of its processes, stops the sidecar: that ends this one last.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTSTP)
	nameProcess(guardName)
	_, _ = io.WriteString(os.Stdout, guardHi)
	_ = os.Stdout.Close()
	debug.FreeOSMemory() // what the program's own start has used
	kill(watch(os.Stdin), session)
	os.Exit(0)
}

// watch reads orders until their writer has died or closed them, and returns the groups that are alive then.
func watch(orders io.Reader) map[int]struct{} {
	live := map[int]struct{}{}
	lines := bufio.NewReaderSize(orders, 512)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return live // with half a line: half a number would be a stranger's
		}
		pgid, err := strconv.Atoi(string(line[1:max(len(line)-1, 1)]))
		switch {
		case err != nil || pgid < 2: // 0 and 1 would be everybody
		case line[0] == '+':
			live[pgid] = struct{}{}
		case line[0] == '-':
			delete(live, pgid)
		}
	}
}

// kill ends the groups. A leader can't leave its session, so a group whose leader is in another one is a stranger's, which
// got the number of a group that has died since.
func kill(live map[int]struct{}, session int) {
	for round := 0; round < killRounds && len(live) > 0; round++ {
		if round > 0 {
			<-time.After(killPause)
		}
		for pgid := range live {
			if sid, err := unix.Getsid(pgid); err == nil && sid != session {
				delete(live, pgid)
				continue
			}
			if err := syscall.Kill(-pgid, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
				delete(live, pgid)
			}
		}
	}
}
