package listener

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces the attempts of one connection. It starts anew each time that calm, which its caller counts, has grown.
type backoff struct {
	min, max time.Duration
	next     time.Duration
	calm     uint64
	begun    bool
}

// wait returns at once at the first attempt, then after a delay that grows from min to max, or when ctx is done.
func (b *backoff) wait(ctx context.Context, calm uint64) error {
	if !b.begun {
		b.begun, b.next, b.calm = true, b.min, calm
		return ctx.Err()
	}
	if calm != b.calm {
		b.next, b.calm = b.min, calm
	}
	delay := b.next/2 + rand.N(b.next+1)
	b.next = min(2*b.next, b.max)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
