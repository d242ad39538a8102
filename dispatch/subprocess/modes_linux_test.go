package subprocess_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
)

func systemModes() map[string]func([]string) {
	return map[string]func([]string){
		// A process that orphans become children of, as those of a container do of its first process.
		"init": func([]string) {
			check(0, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
			handler, err := subprocess.New(self("lingering", subprocess.Config{Env: []string{dirEnv + "=" + os.Getenv(dirEnv)}}))
			check(0, err)
			if result := handler.Run(context.Background(), dispatch.Job{}); result.Outcome != dispatch.OutcomeDone {
				check(0, result.Err)
			}
			if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
				check(0, errors.New("a child is left"))
			}
		},
	}
}

func TestRunReapsOrphansWhereItIsInit(t *testing.T) {
	t.Parallel()
	dir := home(t)
	result := run(t, self("init", subprocess.Config{Env: []string{dirEnv + "=" + dir}}), dispatch.Job{})
	if result.Outcome != dispatch.OutcomeDone {
		t.Fatalf("got %v: %v", result.Outcome, result.Err)
	}
	if len(settled(dir)) != 1 {
		t.Fatalf("there was no orphan: %v", settled(dir))
	}
}
