package listener

import (
	"context"
	"time"
)

// growAfter is how many polls in a row find nothing before their interval doubles.
const growAfter = 8

// polling is how Sleep polls while awake. Only the goroutine that calls Sleep uses it.
type polling struct {
	min, max time.Duration

	interval  time.Duration
	empty     int
	eager     bool      // the last poll has found something
	last      time.Time // when the last poll began
	worked    time.Time // when work was last found
	rechecked mark      // the state that rows were looked for in, thoroughly
}

func (p *polling) reset() { p.interval, p.empty = p.min, 0 }

// found notes what a poll has found.
func (p *polling) found(work bool) {
	if p.eager = work; work {
		p.worked = time.Now()
		p.reset()
		return
	}
	if p.empty++; p.empty >= growAfter {
		p.interval, p.empty = min(2*p.interval, p.max), 0
	}
}

// wait returns true when the next poll is due, and false on a token from stirred or when ctx is done. Time that the caller
// has spent since the last poll counts, but for half of the interval; for an eighth where that poll has found something.
func (p *polling) wait(ctx context.Context, stirred <-chan struct{}) bool {
	least := p.interval / 2
	if p.eager {
		least = p.interval / 8
	}
	timer := time.NewTimer(max(p.interval-time.Since(p.last), least))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-stirred:
		return false
	case <-timer.C:
		p.last = time.Now()
		return true
	}
}

// Sleep is called when the caller has found no work. When it returns asleep, each row that becomes claimable from then on
// rings, or its transaction is watched and a token follows its end; and recheck was called thorough after the moment from
// which this holds. While S is held and rings are rare it returns asleep at once, without a statement. Else it polls, by
// recheck, until it has been quiet and S is held. It returns early, not asleep, when recheck finds work or fails, with its
// error, or when ctx is done. A deaf Listener returns asleep too: the caller polls fast meanwhile.
func (l *Listener) Sleep(ctx context.Context, recheck func(ctx context.Context, thorough bool) (found bool, err error)) (asleep bool, err error) {
	p := &l.polling
	if l.slumber.needed() {
		p.worked = time.Now()
	}
	if !l.slumber.restless() {
		p.reset()
	}
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		heard, epoch := l.hearing.now()
		if !heard {
			return true, nil
		}
		state, stands := l.slumber.stands(epoch, time.Now())
		if stands {
			if state == p.rechecked {
				return true, nil
			}
			drain(l.rings) // what has rung is found now
		} else {
			l.slumber.fallAsleep(p.worked, time.Now())
			if !p.wait(ctx, l.slumber.stirred) {
				continue
			}
		}
		found, err := recheck(ctx, stands)
		if err != nil {
			return false, err
		}
		if p.found(found); found {
			return false, nil
		}
		if stands {
			p.rechecked = state
		}
	}
}

// Awake says that the caller needs no rings until it calls Sleep again. It only notes the time: S is let go once that has
// lasted for 50 ms and at least ten rings came to nobody's use. A caller that is busy now and then, and one to whom nobody
// rings, keep S, and so the way back to sleep is short.
func (l *Listener) Awake() { l.slumber.busy(time.Now()) }

func drain(tokens <-chan struct{}) {
	select {
	case <-tokens:
	default:
	}
}
