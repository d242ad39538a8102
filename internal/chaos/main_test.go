package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/chaos"
)

// childFlag makes this test binary the children of a scenario.
const childFlag = "-chaos-child"

func TestMain(m *testing.M) {
	if i := slices.Index(os.Args, childFlag); i > 0 {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(chaos.Child(ctx, os.Args[i+1:]))
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
