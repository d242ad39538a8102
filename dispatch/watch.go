package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// watchEvery is how often to look for jobs that nobody has a handler for.
const watchEvery = time.Minute

// watchLoop warns of due jobs whose type has no handler in any living worker, once a minute, until ctx is done.
func (d *Dispatcher) watchLoop(ctx context.Context) {
	for sleep(ctx, watchEvery/2+rand.N(watchEvery/2)) {
		types, err := d.unhandled(ctx)
		if err != nil {
			if ctx.Err() == nil {
				d.database.down("look for unhandled types", err)
			}
			continue
		}
		d.metrics.unhandled.Set(float64(len(types)))
		if len(types) > 0 {
			d.log.Warn().Strs("types", types[:min(len(types), 10)]).Int("count", len(types)).
				Msg("jobs are due whose type no running sidecar has a handler for: they stay pending")
		}
	}
}

// unhandledMost is how many unhandled types are counted.
const unhandledMost = 1000

func (d *Dispatcher) unhandled(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	types, err := queryPlain(ctx, d.pool, pgx.RowTo[string], d.sql.unhandled, unhandledMost)
	if err != nil {
		return nil, fmt.Errorf("look for unhandled types: %w", err)
	}
	return types, nil
}

// pauses are types that a handler wants paused, with the reason, until pauseLoop has written them.
type pauses struct {
	mu    sync.Mutex
	types map[string]string
	wake  nudge
}

func (p *pauses) add(jobType, reason string) {
	p.mu.Lock()
	if p.types == nil {
		p.types = map[string]string{}
	}
	p.types[jobType] = reason
	p.mu.Unlock()
	p.wake.send()
}

func (p *pauses) take() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.types
	p.types = nil
	return taken
}

// pauseLoop pauses types whose handler says that it wants no more of them, until ctx is done.
func (d *Dispatcher) pauseLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.pauses.wake:
		}
		for jobType, reason := range d.pauses.take() {
			if err := d.pauseType(ctx, jobType, reason); err != nil {
				d.database.down("pause type", err)
				d.pauses.add(jobType, reason)
				if !sleep(ctx, time.Second) {
					return
				}
			}
		}
	}
}

func (d *Dispatcher) pauseType(ctx context.Context, jobType, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	if _, err := d.pool.Exec(ctx, d.sql.pauseType, jobType, reason); err != nil {
		return fmt.Errorf("pause type: %w", err)
	}
	d.log.Error().Str("type", jobType).Str("error", reason).
		Msg("type paused, its handler wants no more of its jobs: SELECT resume_type(...) resumes it")
	return nil
}
