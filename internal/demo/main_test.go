package demo_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) {
	subprocess.GuardMain()
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
