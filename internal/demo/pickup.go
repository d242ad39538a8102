package demo

import (
	"math"
	"slices"
	"time"
)

// Pickup summarizes the times from an insert's commit to the start of its job's handler, in milliseconds.
type Pickup struct {
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
	Count int     `json:"count"`
}

// samples keeps the most recent durations, at most its capacity.
type samples struct {
	values []time.Duration
	limit  int
	next   int
	max    time.Duration
	count  int
}

func (s *samples) add(value time.Duration) {
	value = max(value, 0)
	s.max = max(s.max, value)
	s.count++
	if len(s.values) < s.limit {
		s.values = append(s.values, value)
		return
	}
	s.values[s.next] = value
	s.next = (s.next + 1) % s.limit
}

// pickup has the percentiles of what is kept, and the maximum and count of all.
func (s *samples) pickup() Pickup {
	sorted := slices.Sorted(slices.Values(s.values))
	return Pickup{
		P50: milliseconds(percentile(sorted, 50)), P95: milliseconds(percentile(sorted, 95)),
		P99: milliseconds(percentile(sorted, 99)), Max: milliseconds(s.max), Count: s.count,
	}
}

// percentile is by nearest rank: the smallest value that at least p percent of the values don't exceed; 0 of none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// milliseconds with three places, so that the JSON stays readable.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
