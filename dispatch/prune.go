package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	pruneShare = 20                    // a walk takes one part in so many of the time
	pruneRest  = 10 * time.Millisecond // at least, between two statements of a walk
	pruneStep  = 5 * time.Millisecond  // a statement that takes longer makes the next smaller
	pruneBatch = 2000                  // jobs that one statement deletes, in about as long
	leastPages = 8
)

// walk is the part of a Dispatcher that prunes.
type walk struct {
	turns chan table // what the surveys tell; the newest alone
	pages int64      // of the next step, by how long the last ones took
}

func newWalk() walk { return walk{turns: make(chan table, 1), pages: rangePages / 4} }

// offer tells pruneLoop what a survey has seen.
func (w *walk) offer(t table) {
	select {
	case <-w.turns:
	default:
	}
	w.turns <- t // by one goroutine alone: there is room
}

// pruneLoop deletes finished jobs past their retention, until ctx is done: off the hot path, without an index, and without
// reading what can't be old enough (see ranges). One sidecar of a fleet does it, the one that has run longest, by its own
// Retention; where two do for a while, they pass over each other's rows.
func (d *Dispatcher) pruneLoop(ctx context.Context) {
	known := newRanges(d.config.Retention)
	if known.nothing() {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case seen := <-d.walk.turns:
			if !seen.turn {
				continue
			}
			known.fit(seen)
			if err := d.prune(ctx, known); err == nil {
				d.database.up(doPrune)
			} else if ctx.Err() == nil {
				d.database.down(doPrune, err)
			}
		}
	}
}

// prune walks over the ranges that are due.
func (d *Dispatcher) prune(ctx context.Context, known *ranges) error {
	deleted := 0
	defer func() {
		if deleted > 0 {
			d.log.Info().Int("jobs", deleted).Msg("pruned finished jobs past their retention")
		}
	}()
	for i, due := range known.due {
		now := time.Since(d.epoch)
		if due > now {
			continue
		}
		n, ripe, err := d.pruneRange(ctx, int64(i)*rangePages)
		deleted += n
		var answer *pgconn.PgError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &answer) && (answer.Code[:2] == "23" || answer.Code[:2] == "P0"):
			// A foreign key or a trigger of the application's: the rest of the table must not wait for it.
			d.log.Warn().Err(err).Int("range", i).Msg("the database refuses to delete finished jobs, trying again later")
			ripe = 0
		case err != nil:
			return err
		}
		known.walked(i, now, ripe)
	}
	return nil
}

// pruneRange deletes what is ripe in a range of pages, in small steps. It returns in how long the next comes of age.
func (d *Dispatcher) pruneRange(ctx context.Context, first int64) (deleted int, ripe time.Duration, err error) {
	ripe = neverRipe
	for from := first; from < first+rangePages; {
		to := min(from+d.walk.pages, first+rangePages)
		found, next, err := d.glean(ctx, from, to)
		if err != nil {
			return deleted, 0, err
		}
		ripe = min(ripe, next)
		for more := found > 0; more; {
			n, err := d.pruneStep(ctx, from, to)
			if err != nil {
				return deleted, 0, err
			}
			deleted += n
			more = n == pruneBatch
		}
		from = to
	}
	return deleted, ripe, nil
}

type gleaned struct {
	Found int
	Next  *float64 // seconds
}

// glean counts what is ripe in some pages, and adapts how many pages the next step reads.
func (d *Dispatcher) glean(ctx context.Context, from, to int64) (found int, ripe time.Duration, err error) {
	var next *float64
	took, err := d.paced(ctx, func(ctx context.Context) error {
		seen, err := queryUnder(ctx, d.shared, d.sql.briefly, pgx.RowToStructByPos[gleaned], d.sql.glean, d.ages(from, to)...)
		if err == nil {
			found, next = seen[0].Found, seen[0].Next
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("look for jobs to prune: %w", err)
	}
	switch w := &d.walk; {
	case took > pruneStep:
		w.pages = max(w.pages/2, leastPages)
	case took < pruneStep/3:
		w.pages = min(w.pages*2, rangePages)
	}
	if next == nil {
		return found, neverRipe, nil
	}
	return found, seconds(*next), nil
}

func (d *Dispatcher) pruneStep(ctx context.Context, from, to int64) (deleted int, err error) {
	_, err = d.paced(ctx, func(ctx context.Context) error {
		found, err := queryUnder(ctx, d.shared, d.sql.plain, pgx.RowTo[int], d.sql.prune, append(d.ages(from, to), pruneBatch)...)
		if err == nil {
			deleted = found[0]
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune jobs: %w", err)
	}
	d.metrics.pruned.Add(float64(deleted))
	return deleted, nil
}

// ages are the arguments of a statement over some pages.
func (d *Dispatcher) ages(from, to int64) []any {
	keep := d.config.Retention
	age := func(kept time.Duration) any {
		if kept < 0 {
			return nil
		}
		return kept.Seconds()
	}
	return []any{from, to, age(keep.Completed), age(keep.Failed), age(keep.Cancelled)}
}

// paced runs a step, and rests after it for as long as keeps the walk's share of the time.
func (d *Dispatcher) paced(ctx context.Context, step func(context.Context) error) (took time.Duration, err error) {
	limited, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	began := time.Now()
	err = step(limited)
	took = time.Since(began)
	sleep(ctx, max(pruneRest, took*(pruneShare-1)))
	return took, err
}

// sleep returns false if ctx was done before the time was over.
func sleep(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
