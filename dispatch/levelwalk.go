package dispatch

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// walkStep is how many levels one statement of a walk goes over at most.
const walkStep = 5000

// tour is how far walks have come in going over levels once. A walk that is cut short leaves the rest of its tour to the next.
type tour struct {
	began time.Time        // zero: the next walk begins a new one
	below map[string]int64 // of named types: the priorities below which it goes on; above all where there is none
	after levelKey         // of other types: the level after which it goes on; the zero key is before all
}

// walkLevels looks, without locks, for the first job of each level that there is room for. It returns how long it is until the
// first of them is due, not positive if one is. It stops early when it has found due jobs; the next walk goes on from there.
func (d *Dispatcher) walkLevels(ctx context.Context, w wants) (next time.Duration, err error) {
	began := time.Now()
	d.metrics.walks.Inc()
	d.levels.asked = false
	next = farAhead
	if len(w.types) > 0 {
		next, err = d.wander(ctx, w, next, &d.levels.named, d.walkNamed)
	}
	if w.any > 0 && err == nil {
		next, err = d.wander(ctx, w, next, &d.levels.others, d.walkOthers)
	}
	if err != nil {
		d.levels.asked = true
		return 0, err
	}
	d.levels.walked = time.Now()
	d.levels.took = d.levels.walked.Sub(began)
	return next, nil
}

// wander takes at least one step, and more while nothing is due, up to the end of a tour that it began itself. Short of that it asks
// for another walk.
func (d *Dispatcher) wander(ctx context.Context, w wants, next time.Duration, t *tour,
	step func(context.Context, wants, *tour) (time.Duration, error),
) (time.Duration, error) {
	whole := false
	for {
		if t.began.IsZero() {
			whole = true
			*t = tour{began: time.Now(), below: map[string]int64{}}
		}
		in, err := step(ctx, w, t)
		if err != nil {
			return 0, err
		}
		next = min(next, in)
		if whole && t.began.IsZero() {
			return next, nil
		}
		if next <= 0 {
			d.levels.asked = true
			return next, nil
		}
	}
}

func (d *Dispatcher) walkNamed(ctx context.Context, w wants, t *tour) (time.Duration, error) {
	now := time.Now()
	below := make([]int64, len(w.types))
	for i, name := range w.types {
		below[i] = math.MaxInt64
		if priority, ok := t.below[name]; ok {
			below[i] = priority
		}
	}
	heads, err := d.heads(ctx, d.sql.walk, w.types, walkStep, below)
	if err != nil {
		return 0, err
	}
	for _, h := range heads {
		t.below[h.jobType] = int64(h.priority)
	}
	return d.levels.walkedOver(heads, t, func(jobType string) bool { return slices.Contains(w.types, jobType) }, now), nil
}

func (d *Dispatcher) walkOthers(ctx context.Context, w wants, t *tour) (time.Duration, error) {
	now := time.Now()
	heads, err := d.heads(ctx, d.sql.walkOthers, w.others, walkStep, t.after.jobType, t.after.priority)
	if err != nil {
		return 0, err
	}
	if len(heads) > 0 {
		t.after = heads[len(heads)-1].levelKey
	}
	return d.levels.walkedOver(heads, t, func(jobType string) bool { return !slices.Contains(w.others, jobType) }, now), nil
}

func (d *Dispatcher) heads(ctx context.Context, statement string, arguments ...any) ([]head, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	heads, err := queryUnder(ctx, &d.claims, d.sql.plain, func(row pgx.CollectableRow) (h head, err error) {
		var in float64
		err = row.Scan(&h.jobType, &h.priority, &h.due, &h.id, &in)
		h.in = seconds(in)
		return h, err
	}, statement, arguments...)
	if err != nil {
		return nil, fmt.Errorf("look for due jobs: %w", err)
	}
	return heads, nil
}
