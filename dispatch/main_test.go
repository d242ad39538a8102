package dispatch_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// The test binary is its own child: started with sidecarEnv it is a sidecar, and no tests run.
func TestMain(m *testing.M) {
	if described := os.Getenv(sidecarEnv); described != "" {
		os.Exit(sidecarMain(described))
	}
	// Children built with the race detector would wait for a second before each exit.
	if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
