package chaos_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

func TestReportNamesWhatWasViolated(t *testing.T) {
	t.Parallel()
	f := forge()
	f.row(plain).Status = "pending"
	violations, figures := chaos.Check(&f.Facts, chaos.Allowed{Late: time.Minute})
	o := chaos.Outcome{
		Scenario: chaos.Scenario{Name: "forged", Title: "made up"}, Took: time.Second, Figures: figures, Violations: violations,
		Folder: "/somewhere", Err: errors.New("it broke"),
	}
	var said strings.Builder
	chaos.Print(&said, o)
	for _, want := range []string{"VIOLATED", "forged", "7 jobs", "it broke", "lost: job 1 is still pending", "committed:", "audit: pending -> processing",
		"started: attempt 1", "row: ", "/somewhere"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not in\n%s", want, said.String())
		}
	}
	const row = "| made up | 7 | 1 | 2 | 1.71 s | 1.71 s | - | 0.29 s | 0 | 0 | 1 | 0 | 2 | - |"
	if page := chaos.Page(chaos.Config{Seed: 7}, []chaos.Outcome{o}); !strings.Contains(page, row) || !strings.Contains(page, "seed 7") {
		t.Errorf("%q is not in\n%s", row, page)
	}
}
