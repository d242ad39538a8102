package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// pidSuffix of the file that names a process, for a job that kills its sidecar.
const pidSuffix = ".pid"

// process is a child that runs: a sidecar, or the application.
type process struct {
	name    string // new at each start
	command *exec.Cmd
	log     string
	history *History
	exited  chan struct{}
	ended   chan struct{} // and that is noted
}

// startProcess starts a program whose output goes to a file that is named after it.
func startProcess(history *History, folder, name string, program []string, env []string) (*process, error) {
	p := &process{name: name, history: history, exited: make(chan struct{}), ended: make(chan struct{}), log: filepath.Join(folder, name+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	// It is stopped by signals, which are what is tested.
	p.command = exec.CommandContext(context.Background(), program[0], program[1:]...)
	p.command.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, env...)
	p.command.Stdout, p.command.Stderr = log, log
	// Ctrl-C at the terminal is for the scenario, which ends its children in order.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(p.command.SysProcAttr)
	started := make(chan error, 1)
	go p.live(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pidFile := filepath.Join(folder, name+pidSuffix)
	if err := os.WriteFile(pidFile, fmt.Append(nil, p.pid()), 0o600); err != nil {
		return nil, fmt.Errorf("write process id: %w", err)
	}
	err = history.Note(Event{Kind: Up, Process: name, PID: p.pid()})
	go p.noteEnd(pidFile)
	return p, err
}

// live starts the process and returns when it has ended. endWithParent means the thread that forks: this one.
func (p *process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.command.Start()
	started <- err
	if err == nil {
		_ = p.command.Wait() // its state tells how it ended
		close(p.exited)
	}
}

func (p *process) pid() int { return p.command.Process.Pid }

func (p *process) noteEnd(pidFile string) {
	defer close(p.ended)
	<-p.exited
	_ = os.Remove(pidFile) // goes with the folder
	_ = p.history.Note(Event{Kind: Down, Process: p.name, PID: p.pid(), Exit: p.command.ProcessState.String()})
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal; a process that has ended needs none.
func (p *process) signal(signal syscall.Signal) error {
	if !p.running() {
		return nil
	}
	if signal == syscall.SIGTERM {
		if err := p.history.Note(Event{Kind: Stopping, Process: p.name}); err != nil {
			return err
		}
	}
	if err := p.command.Process.Signal(signal); err != nil && p.running() {
		return fmt.Errorf("send %s to %s: %w", signal, p.name, err)
	}
	return nil
}

// await returns when the process has ended; one that takes too long is killed, and an error.
func (p *process) await(limit time.Duration) error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
	}
	_ = p.command.Process.Kill() // fails only if it has ended
	<-p.ended
	return fmt.Errorf("%s didn't end within %s", p.name, limit)
}
