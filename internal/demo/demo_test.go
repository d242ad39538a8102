package demo_test

import (
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/demo"
)

// The whole thing on a server of its own: every scenario, each job compared with what it should have come to.
func TestRunEndsAsExpected(t *testing.T) {
	t.Parallel()
	summary, err := demo.Run(t.Context(), demo.Config{For: 3 * time.Second, View: demo.NewLines(t.Output())})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", summary)
	if !summary.OK || summary.UnexpectedCount != 0 {
		t.Errorf("unexpected: %q", summary.Unexpected)
	}
	if summary.Inserted < 100 || summary.Verified != summary.Inserted || summary.Unfinished != 0 || summary.Interrupted {
		t.Errorf("not all of at least 100 jobs were verified: %+v", summary)
	}
	if summary.Inserted != summary.Completed+summary.Failed || summary.Failed < 4 || summary.Retried < 4 || summary.Refused < 2 || summary.RolledBack < 2 {
		t.Errorf("a scenario is missing: %+v", summary)
	}
	for _, jobType := range []string{"send_email", "resize_image", "book_payment", "update_search"} {
		if counts := summary.Types[jobType]; counts.Completed == 0 || counts.Failed == 0 || counts.Retried == 0 {
			t.Errorf("%s: want some completed, failed and retried: %+v", jobType, counts)
		}
	}
	if summary.PickupMS.Count < 50 || summary.P50 <= 0 || summary.P99 < summary.P50 || summary.FirstCompletedS <= 0 {
		t.Errorf("pickup times are missing: %+v", summary)
	}
}
