package subprocess

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgbell/pgbell/dispatch"
)

// Exit codes of sysexits.h that mean something here.
const (
	exitFail  = 65
	exitRetry = 75
)

// The database keeps the first 4,000 bytes of an error: the end of a child's words, which says most, must be among them.
const (
	maxError  = 4000
	maxStdout = 600
)

func result(state *os.ProcessState, s stop, stdout, stderr *output) dispatch.Result {
	if s.reason == nil && state.ExitCode() == 0 {
		return dispatch.Done(stdout.document())
	}
	err := &failure{status: status(state, s), cause: s.reason, said: said(stdout, stderr)}
	if state.ExitCode() == exitFail {
		return dispatch.Fail(err)
	}
	return dispatch.Retry(err)
}

// failure is an attempt that didn't end well.
type failure struct {
	status string
	cause  error // why it was stopped; nil: it ended by itself
	said   string
}

func (f *failure) Error() string {
	// What it said gives way, not what happened to it.
	text := tailOf(f.status, maxError/2)
	return text + tailOf(f.said, maxError-len(text))
}

func (f *failure) Unwrap() error { return f.cause }

func status(state *os.ProcessState, s stop) string {
	var text string
	ws, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled():
		text = "killed by " + unix.SignalName(ws.Signal())
		if ws.CoreDump() {
			text += ", core dumped"
		}
		if ws.Signal() == syscall.SIGKILL && s.reason == nil {
			text += ", which pgbell didn't send: out of memory?"
		}
	case ws.ExitStatus() == exitFail:
		text = fmt.Sprintf("exit status %d, failed for good", exitFail)
	case ws.ExitStatus() == exitRetry:
		text = fmt.Sprintf("exit status %d, try again", exitRetry)
	default:
		text = fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
	switch {
	case s.reason == nil:
		return text
	case s.killed:
		return fmt.Sprintf("%s: ignored SIGTERM, %s", s.reason, text)
	default:
		return fmt.Sprintf("%s: after SIGTERM %s", s.reason, text)
	}
}

// said returns the ends of both outputs, standard error before standard output.
func said(stdout, stderr *output) string {
	out := tailOf(clean(stdout.last(2*maxStdout)), maxStdout)
	room := maxError - len(out) - len("\nstderr: \nstdout: ") - 100
	var b strings.Builder
	if text := tailOf(clean(stderr.last(stderrKept)), room); text != "" {
		b.WriteString("\nstderr: " + text)
	}
	if out != "" {
		b.WriteString("\nstdout: " + out)
	}
	return b.String()
}
