package dispatch

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// A holder is named once its rows are many and it is old, once, and again a quarter of an hour later; another one, too.
func TestHoldersOfTheHorizonAreNamedOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	d := &Dispatcher{log: zerolog.New(&log), metrics: newMetrics()}
	var w watch
	start := time.Now()
	lines := func(after time.Duration, dead int64, holders ...Holder) int {
		log.Reset()
		d.warnHorizon(&w, HorizonReport{DeadRows: dead, LiveRows: 100_000, Holders: holders}, start.Add(after))
		return strings.Count(log.String(), "\n")
	}
	old := Holder{Kind: HolderSession, PID: 7, Name: "report", Open: time.Hour, transaction: "1"}
	slot := Holder{Kind: HolderSlot, Name: "replica", Transactions: 5000} // without a time of its own
	for _, step := range []struct {
		what    string
		after   time.Duration
		dead    int64
		holders []Holder
		want    int
	}{
		{"few dead rows", 0, 12_000, []Holder{old}, 0},
		{"many", time.Minute, 12_001, []Holder{old}, 1},
		{"named before; the slot is new", 2 * time.Minute, 20_000, []Holder{old, slot}, 0},
		{"the slot is still there", 3 * time.Minute, 20_000, []Holder{old, slot}, 1},
		{"both were named", 4 * time.Minute, 30_000, []Holder{old, slot}, 0},
		{"a reminder", 16 * time.Minute, 30_000, []Holder{old}, 1},
		{"the session's next transaction", 17 * time.Minute, 30_000, []Holder{{Kind: HolderSession, PID: 7, Name: "report", Open: 2 * time.Minute, transaction: "2"}}, 1},
		{"a short one", 18 * time.Minute, 30_000, []Holder{{Kind: HolderSession, PID: 8, Name: "quick", Open: time.Second, transaction: "3"}}, 0},
	} {
		if got := lines(step.after, step.dead, step.holders...); got != step.want {
			t.Errorf("%s: %d lines, want %d: %s", step.what, got, step.want, log.String())
		}
	}
	if len(w.holders) != 1 {
		t.Errorf("%d holders remembered", len(w.holders))
	}
}
