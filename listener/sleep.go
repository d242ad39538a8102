package listener

import "context"

// Sleep is called when the caller has found no work. When it returns asleep, each row that becomes claimable from then on
// rings, and recheck was called after the moment from which this holds. It calls recheck once after each time that the
// bell began to be heard, and else returns asleep at once. It returns early, not asleep, when recheck finds work or fails,
// with its error, or when ctx is done. A deaf Listener returns asleep too: the caller polls fast meanwhile.
func (l *Listener) Sleep(ctx context.Context, recheck func(ctx context.Context, thorough bool) (found bool, err error)) (asleep bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		heard, epoch := l.hearing.now()
		if !heard || epoch == l.rechecked.Load() {
			return true, nil
		}
		if found, err := recheck(ctx, true); found || err != nil {
			return false, err
		}
		l.rechecked.Store(epoch)
	}
}

// Awake says that the caller needs no rings until it calls Sleep again. The trigger rings whether or not anybody sleeps, so
// there is nothing to tell it.
func (l *Listener) Awake() {}
