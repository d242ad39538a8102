package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// recorder notes when each job's handler started. Jobs are numbered from 0; a handler only stores a number and a time.
type recorder struct {
	starts      []atomic.Int64 // nanoseconds since 1970, 0 for not yet
	runs, twice atomic.Int64
}

func newRecorder(jobs int) *recorder { return &recorder{starts: make([]atomic.Int64, jobs)} }

// begin notes that job n runs. A number that the recorder has no place for is no job of the measurement.
func (r *recorder) begin(n int) { r.note(n, time.Now().UnixNano()) }

func (r *recorder) note(n int, at int64) {
	if n < 0 || n >= len(r.starts) {
		return
	}
	if r.starts[n].Swap(at) != 0 {
		r.twice.Add(1)
	}
	r.runs.Add(1)
}

// number reads the only number in a payload such as {"n": 17}; -1 where there is none.
func number(payload []byte) int {
	_, digits, found := bytes.Cut(payload, []byte(":"))
	n, err := strconv.Atoi(string(bytes.Trim(digits, " }")))
	if !found || err != nil {
		return -1
	}
	return n
}

func payloadOf(n int) string { return `{"n": ` + strconv.Itoa(n) + `}` }

// wait returns when so many jobs have started.
func (r *recorder) wait(ctx context.Context, jobs int) error {
	for r.runs.Load() < int64(jobs) {
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for %d jobs, of which %d have run: %w", jobs, r.runs.Load(), err)
		}
	}
	return nil
}

// verify says whether each of the first jobs ran, and none twice.
func (r *recorder) verify(jobs int) error {
	if twice := r.twice.Load(); twice > 0 {
		return fmt.Errorf("%d jobs ran more than once", twice)
	}
	for n := range jobs {
		if r.starts[n].Load() == 0 {
			return fmt.Errorf("job %d of %d did not run", n, jobs)
		}
	}
	return nil
}

// since lists how long after a time of its own each job started, in milliseconds, sorted. A job without either is left out.
func (r *recorder) since(from []atomic.Int64) []float64 {
	var all []float64
	for n := range min(len(from), len(r.starts)) {
		since, start := from[n].Load(), r.starts[n].Load()
		if since == 0 || start == 0 {
			continue
		}
		// A ring can be heard before the reply to the commit is.
		all = append(all, max(0, float64(start-since)/1e6))
	}
	slices.Sort(all)
	return all
}

// tenths are the rates at which the first and the last tenth of the jobs started, in jobs/s.
func (r *recorder) tenths(jobs int) (first, last float64) {
	all := make([]int64, jobs)
	for n := range all {
		all[n] = r.starts[n].Load()
	}
	slices.Sort(all)
	tenth := max(2, jobs/10)
	rate := func(part []int64) float64 {
		took := time.Duration(part[len(part)-1] - part[0])
		return float64(len(part)-1) / max(took, time.Microsecond).Seconds()
	}
	return rate(all[:tenth]), rate(all[jobs-tenth:])
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// errMissing: a system can't be measured on this machine, which is no failure of the run.
var errMissing = errors.New("not available here")
