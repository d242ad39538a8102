package dispatch

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// However long jobs that are to run alone have waited in vain, others are claimed for half of the time.
func TestSolitudeInVainLeavesHalfOfTheTime(t *testing.T) {
	t.Parallel()
	d := smallestDispatcher(t, pgtest.Migrated(t))
	job := func(number byte, crashes int) *attempt {
		return &attempt{job: Job{Type: "job", Crashes: crashes, lease: pgtype.UUID{Bytes: [16]byte{number}, Valid: true}}}
	}
	d.hold(t.Context(), []*attempt{job(1, 0)}) // runs for long
	const wait = 20 * time.Minute
	d.alone.wait = wait
	d.seclude(t.Context(), []*attempt{job(2, aloneFrom)})
	if d.alone.waiting == nil {
		t.Fatal("it does not wait")
	}
	d.alone.since, d.alone.until = time.Now().Add(-wait), time.Now()
	d.tendSolitude()
	if d.alone.waiting != nil || d.lanes.isSecluded() {
		t.Fatal("it still waits")
	}
	d.tendSolitude()
	if rest := time.Until(d.alone.again); rest < wait-time.Minute {
		t.Errorf("after %s in which nothing was claimed, the next such job is taken in after %s", wait, rest.Round(time.Second))
	}
}
