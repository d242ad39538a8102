package subprocess

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

// Handler runs attempts as child processes. It may be used by many goroutines at once.
type Handler struct {
	config Config
	path   string
	env    []string
}

var _ dispatch.Handler = (*Handler)(nil)

// New looks the program up and reads this process's environment, and starts nothing. All mistakes in config are reported
// at once.
func New(config Config) (*Handler, error) {
	config = config.withDefaults()
	path, notFound := config.lookUp()
	if err := errors.Join(config.validate(), notFound); err != nil {
		return nil, err
	}
	return &Handler{config: config, path: path, env: config.environment(os.Environ())}, nil
}

// Run starts a child, and returns when it and its group are gone. After ctx is done that takes KillGrace at most, unless the
// kernel can't end the child, which waits for a device then: nobody else should run the job either until it can.
func (h *Handler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	if strings.IndexByte(job.ID+job.Type+job.Lease, 0) >= 0 {
		return dispatch.Fail(errors.New("the job's id, type or lease holds a NUL byte, which no environment can"))
	}
	deadline := job.Deadline
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	started := time.Now()
	child, err := h.start(ctx, job, deadline)
	switch {
	case err != nil && ctx.Err() != nil:
		return dispatch.Retry(fmt.Errorf("stopped before the command was started: %w", context.Cause(ctx)))
	case err != nil:
		return dispatch.Unavailable(fmt.Errorf("start command: %w", err), 0)
	}
	stop := child.supervise(ctx, started, deadline, h.config.KillGrace)
	state, err := child.end()
	if err != nil {
		return dispatch.Retry(fmt.Errorf("wait for command: %w", err))
	}
	return result(state, stop, child.stdout, child.stderr)
}

// start returns a child whose group the guard, if there is one, knows.
func (h *Handler) start(ctx context.Context, job dispatch.Job, deadline time.Time) (*child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	attr := &os.ProcAttr{
		Dir: h.config.Dir,
		Env: h.jobEnvironment(job, deadline),
		Sys: &syscall.SysProcAttr{Setpgid: true},
	}
	return startChild(attr, job.Payload, h.config.MaxOutput, h.config.Guard, func() (process *os.Process, err error) {
		if h.config.Guard == nil {
			process, err = os.StartProcess(h.path, h.config.Command, attr)
		} else {
			process, err = h.config.Guard.start(ctx, h.path, h.config.Command, attr)
		}
		if errors.Is(err, os.ErrNotExist) && h.config.Dir != "" {
			// The kernel doesn't say which of the two is missing.
			if _, missing := os.Stat(h.config.Dir); missing != nil {
				return nil, missing
			}
		}
		return process, err
	})
}

func (h *Handler) jobEnvironment(job dispatch.Job, deadline time.Time) []string {
	env := make([]string, 0, len(h.env)+6)
	env = append(env, h.env...)
	env = append(env,
		"PGBELL_JOB_ID="+job.ID,
		"PGBELL_JOB_TYPE="+job.Type,
		"PGBELL_ATTEMPT="+strconv.Itoa(job.Attempt),
		"PGBELL_MAX_ATTEMPTS="+strconv.Itoa(job.MaxAttempts),
		"PGBELL_LEASE="+job.Lease,
	)
	if !deadline.IsZero() {
		env = append(env, "PGBELL_DEADLINE="+deadline.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	return env
}
