package dispatch

import (
	"context"
	"math/rand/v2"
	"time"
)

// pause waits between tries of one thing: twice as long each time, up to a bound, with jitter.
type pause struct{ base, limit, next time.Duration }

func newPause(base, limit time.Duration) *pause { return &pause{base: base, limit: limit, next: base} }

// wait returns after the pause, when ctx is done, or on a token from wake.
func (p *pause) wait(ctx context.Context, wake <-chan struct{}) {
	timer := time.NewTimer(p.length())
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// length of the pause that is due; the next one is longer.
func (p *pause) length() time.Duration {
	length := p.next/2 + rand.N(p.next/2+1)
	p.next = min(2*p.next, p.limit)
	return length
}

func (p *pause) reset() { p.next = p.base }
