package dispatch

import (
	"testing"
	"time"
)

func TestRangesAreWalkedWhenSomethingCanBeRipe(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, c := range []struct {
		name       string
		keep       Retention
		ripe, want time.Duration
	}{
		{"nothing in it ends within the age", Retention{7 * day, 30 * day, KeepForever}, neverRipe, day},
		{"the next is ripe in 9 h", Retention{7 * day, 30 * day, 7 * day}, 9 * time.Hour, 9 * time.Hour},
		{"the next is ripe at once: its neighbours too, soon", Retention{7 * day, 30 * day, 7 * day}, time.Second, 7 * day / pruneSlack},
		{"ages of months wait for hours", Retention{365 * day, 365 * day, 365 * day}, time.Second, mostSlack},
		{"what is pending may end now, and be kept for an hour", Retention{time.Hour, 30 * day, 7 * day}, neverRipe, time.Hour},
		{"nothing is kept", Retention{KeepNothing, 30 * day, 7 * day}, neverRipe, pruneEvery},
		{"failed ones alone go", Retention{KeepForever, 12 * time.Hour, KeepForever}, neverRipe, 12 * time.Hour},
	} {
		known := newRanges(c.keep)
		known.fit(table{pages: 1, file: 1})
		const now = 5 * time.Hour
		known.walked(0, now, c.ripe)
		if got := known.due[0] - now; got != c.want {
			t.Errorf("%s: again in %s, want %s", c.name, got, c.want)
		}
	}
	if !newRanges(Retention{KeepForever, KeepForever, KeepForever}).nothing() {
		t.Error("kept for ever, there should be nothing to do")
	}
}

func TestRangesFollowTheTable(t *testing.T) {
	t.Parallel()
	known := newRanges(Retention{time.Hour, time.Hour, time.Hour})
	lengths := func(seen table) (all, due int) {
		known.fit(seen)
		for _, d := range known.due {
			if d == 0 {
				due++
			}
		}
		return len(known.due), due
	}
	if all, due := lengths(table{pages: 2*rangePages + 1, file: 7}); all != 3 || due != 3 {
		t.Errorf("new: %d ranges, %d due", all, due)
	}
	for i := range known.due {
		known.walked(i, 1, neverRipe)
	}
	if all, due := lengths(table{pages: 4 * rangePages, file: 7}); all != 4 || due != 1 {
		t.Errorf("grown: %d ranges, %d due", all, due)
	}
	if all, due := lengths(table{pages: rangePages, file: 7}); all != 1 || due != 0 {
		t.Errorf("cut: %d ranges, %d due", all, due)
	}
	if all, due := lengths(table{pages: 2 * rangePages, file: 7}); all != 2 || due != 1 {
		t.Errorf("grown again: %d ranges, %d due", all, due)
	}
	if all, due := lengths(table{pages: 2 * rangePages, file: 8}); all != 2 || due != 2 {
		t.Errorf("rewritten: %d ranges, %d due", all, due)
	}
}
