package dispatch_test

import (
	"os"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
