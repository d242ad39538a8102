package dispatch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

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
				d.database.down(doPause, err)
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
	if _, err := execUnder(ctx, d.shared, d.sql.plain, d.sql.pauseType, jobType, reason); err != nil {
		return fmt.Errorf("pause type: %w", err)
	}
	d.database.up(doPause)
	d.log.Error().Str("type", jobType).Str("error", reason).
		Msg("type paused, its handler wants no more of its jobs: SELECT resume_type(...) resumes it")
	return nil
}
