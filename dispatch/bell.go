package dispatch

import "context"

// Bell tells a Dispatcher when there may be work. Falling asleep is a dialogue: only the Bell knows from when on an
// insert rings, and only the Dispatcher can look for what was inserted before.
//
// All methods but Rings and Cancels are called by one goroutine of one Dispatcher.
type Bell interface {
	// Rings delivers a token after rings: rows may have become due or claimable, or what Deaf says has changed.
	// Rings that come before the token is taken may share it. Always the same channel; never closed.
	Rings() <-chan struct{}

	// Cancels delivers a token, in the same way, when the cancel of a running job was asked for.
	Cancels() <-chan struct{}

	// Sleep is called when the Dispatcher has found no work, nor a due job that a claim has to pass over: that comes first
	// because Sleep may return asleep without a look of its own, and the other transaction may let go of the job without a
	// ring. When it returns asleep, each row that becomes claimable from then on rings, and recheck was called thorough
	// after the moment from which this holds, or needn't be. It returns early, not asleep, when recheck finds work, fails, or
	// ctx is done. A deaf Bell returns asleep too: the Dispatcher polls fast meanwhile.
	//
	// Sleep calls recheck zero or more times, and may block for as long as it finds polling cheaper than being rung: recheck
	// claims once more, and reports whether that found anything; thorough, it looks, without locks, for due jobs that the
	// claim has to pass over, too.
	Sleep(ctx context.Context, recheck func(ctx context.Context, thorough bool) (found bool, err error)) (asleep bool, err error)

	// Awake says that the Dispatcher needs no rings until it calls Sleep again: it has no room for jobs, or more than it has
	// room for. It does not block, and may be called often.
	Awake()

	// Deaf reports that rings may be missed at present. It may be called from any goroutine.
	Deaf() bool

	// Hearings is how many times the Bell has begun to be heard: another number than before says that it was deaf in between, and
	// may hear another server since. It may be called from any goroutine.
	Hearings() uint64
}

// Presence lets other sidecars see within a second or two that this process has died: the listener's bell connection
// holds a lock that is free as soon as the server sees the connection go.
type Presence interface {
	// Announce takes worker as the number to be present by, at once or as soon as there is a connection, until ctx is
	// done. It returns when ctx is done.
	Announce(ctx context.Context, worker int32) error

	// Present reports whether the lock is held at present. While it isn't, the Dispatcher heartbeats often instead.
	Present() bool
}

// noBell is the Bell of a Dispatcher that only polls.
type noBell struct{}

func (noBell) Rings() <-chan struct{}   { return nil }
func (noBell) Cancels() <-chan struct{} { return nil }
func (noBell) Awake()                   {}
func (noBell) Deaf() bool               { return true }
func (noBell) Hearings() uint64         { return 0 }
func (noBell) Sleep(context.Context, func(context.Context, bool) (bool, error)) (bool, error) {
	return true, nil
}
