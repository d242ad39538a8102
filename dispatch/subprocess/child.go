package subprocess

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

const (
	stderrKept = 8 << 10
	// A process outside the group may hold a child's output open for ever: only such a one makes its reader wait.
	outputGrace = 2 * time.Second

	leaseEndingGrace = time.Second
	shutdownGrace    = 8 * time.Second // a Dispatcher calls handlers stuck after 10 s
)

// child is one running command. Its process id, which is its group's too, stays its own until end has reaped it: so no
// signal can reach a stranger.
type child struct {
	process *os.Process
	guard   *Guard
	stdin   *os.File
	outputs []*os.File
	stdout  *output
	stderr  *output
	exited  chan struct{}
	waitErr error // after exited
	wg      sync.WaitGroup
}

// startChild makes the three pipes, calls start with the child's ends of them in attr, and serves them.
func startChild(attr *os.ProcAttr, payload []byte, maxOutput int, guard *Guard, start func() (*os.Process, error)) (*child, error) {
	var theirs, ours []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			_ = f.Close() // a pipe: there is nothing to lose
		}
	}
	defer func() { closeAll(theirs) }()
	for fd := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			return nil, err
		}
		if fd == 0 {
			theirs, ours = append(theirs, r), append(ours, w)
		} else {
			theirs, ours = append(theirs, w), append(ours, r)
		}
	}
	attr.Files = theirs
	process, err := start()
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	c := &child{
		process: process,
		guard:   guard,
		stdin:   ours[0],
		outputs: ours[1:],
		stdout:  &output{max: maxOutput, tailSize: stderrKept},
		stderr:  &output{tailSize: stderrKept},
		exited:  make(chan struct{}),
	}
	c.wg.Go(func() { c.feed(payload) })
	c.wg.Go(func() { c.stdout.drain(c.outputs[0]) })
	c.wg.Go(func() { c.stderr.drain(c.outputs[1]) })
	c.wg.Go(func() {
		c.waitErr = awaitExit(process.Pid)
		close(c.exited)
	})
	return c, nil
}

// feed fails when the child doesn't read all, which is the child's right.
func (c *child) feed(payload []byte) {
	_, _ = c.stdin.Write(payload)
	_ = c.stdin.Close()
}

// stop says why and how far a child was told to end before it did.
type stop struct {
	reason error // nil: it wasn't
	killed bool
}

// supervise returns when the child has exited, which it makes sure of: see the package comment.
func (c *child) supervise(ctx context.Context, started, deadline time.Time, grace time.Duration) stop {
	var s stop
	term, kill := newAlarm(), newAlarm()
	defer term.Stop()
	defer kill.Stop()
	if !deadline.IsZero() {
		limit := deadline.Sub(started)
		term.Reset(time.Until(deadline.Add(-min(grace, max(limit, 0)/4))))
		kill.Reset(time.Until(deadline))
	}
	timeout := func() error {
		return fmt.Errorf("%w after %s", dispatch.ErrTimeout, deadline.Sub(started).Round(time.Millisecond))
	}
	for cancelled := ctx.Done(); ; {
		var reason error
		sig := syscall.SIGTERM
		select {
		case <-c.exited:
			return s
		case <-cancelled:
			cancelled = nil
			reason = context.Cause(ctx)
			if errors.Is(reason, context.DeadlineExceeded) || errors.Is(reason, dispatch.ErrTimeout) {
				reason = timeout()
			}
			if left := graceFor(reason, grace); deadline.IsZero() || time.Until(deadline) > left {
				kill.Reset(left)
			}
		case <-term.C:
			reason = timeout()
		case <-kill.C:
			reason, sig = timeout(), syscall.SIGKILL
		}
		select {
		case <-c.exited:
			return s // by itself, at the same moment
		default:
		}
		if s.reason == nil {
			s.reason = reason
		} else if sig == syscall.SIGTERM {
			continue // it was told
		}
		c.signal(sig)
		c.signal(syscall.SIGCONT) // what was stopped couldn't obey SIGTERM
		s.killed = sig == syscall.SIGKILL
	}
}

// graceFor cuts grace short where others wait for the end of the child.
func graceFor(reason error, grace time.Duration) time.Duration {
	switch {
	case errors.Is(reason, dispatch.ErrLeaseLost): // another worker may have started the job
		return 0
	case errors.Is(reason, dispatch.ErrLeaseEnding): // and is about to
		return min(grace, leaseEndingGrace)
	case errors.Is(reason, dispatch.ErrShutdown):
		return min(grace, shutdownGrace)
	}
	return grace
}

// newAlarm returns a timer that has not been set.
func newAlarm() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// signal fails when no process is left in the group, or none that this one may signal: there is nothing to do then.
func (c *child) signal(sig syscall.Signal) { _ = syscall.Kill(-c.process.Pid, sig) }

// end is called once the child has exited. It kills what is left of the group, reaps the child, and returns when its
// output is read and all goroutines have ended.
func (c *child) end() (*os.ProcessState, error) {
	<-c.exited
	c.signal(syscall.SIGKILL)
	if c.guard != nil {
		// The dead child still holds the group's number, so that the guard can't meet a stranger under it; and nobody in
		// the group survives a SIGKILL that was sent: the guard isn't needed any more.
		c.guard.forget(c.process.Pid)
	}
	state, err := c.process.Wait()
	reapOrphans(c.process.Pid)

	_ = c.stdin.Close()
	for _, f := range c.outputs {
		_ = f.SetReadDeadline(time.Now().Add(outputGrace))
	}
	c.wg.Wait()
	for _, f := range c.outputs {
		_ = f.Close()
	}
	return state, errors.Join(c.waitErr, err)
}

// drain reads until the end, so that the writer is never blocked.
func (o *output) drain(r io.Reader) {
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		o.add(buf[:n])
		if err != nil {
			return
		}
	}
}
