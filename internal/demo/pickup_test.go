package demo

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPercentileIsByNearestRank(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for name, test := range map[string]struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		"none":          {nil, 50, 0},
		"one":           {[]time.Duration{7}, 99, 7},
		"two, p50":      {[]time.Duration{1, 9}, 50, 1},
		"two, p51":      {[]time.Duration{1, 9}, 51, 9},
		"hundred, p50":  {hundred, 50, 50},
		"hundred, p95":  {hundred, 95, 95},
		"hundred, p99":  {hundred, 99, 99},
		"hundred, p100": {hundred, 100, 100},
		"hundred, p0":   {hundred, 0, 1},
		"five, p99":     {[]time.Duration{1, 2, 3, 4, 500}, 99, 500},
	} {
		if got := percentile(test.sorted, test.p); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestPercentileLeavesAsManyBelow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, 50), func(n int64) time.Duration { return time.Duration(n) }), 1, 60).Draw(t, "values")
		p := rapid.Float64Range(0.1, 100).Draw(t, "p")
		slices.Sort(values)
		got := percentile(values, p)
		atMost, below := 0, 0
		for _, value := range values {
			if value <= got {
				atMost++
			}
			if value < got {
				below++
			}
		}
		if float64(atMost) < p/100*float64(len(values))-1e-9 || float64(below) >= p/100*float64(len(values)) {
			t.Fatalf("p%g of %v is %d", p, values, got)
		}
	})
}

func TestSamplesKeepTheMostRecent(t *testing.T) {
	t.Parallel()
	s := samples{limit: 3}
	for _, n := range []time.Duration{900, 1, 2, 3, -5} {
		s.add(n * time.Millisecond)
	}
	got := s.pickup()
	want := Pickup{P50: 2, P95: 3, P99: 3, Max: 900, Count: 5}
	if got != want || len(s.values) != 3 {
		t.Errorf("%+v of %v, want %+v: the last three, a negative one as 0, and the maximum of all", got, s.values, want)
	}
}
