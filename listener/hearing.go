package listener

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// hearing keeps whether the bell is heard, and the canary that proves it.
type hearing struct {
	logger  zerolog.Logger
	ring    func()
	metrics *metrics
	// calmAfter is how long the bell must be heard for its next loss to count as the first.
	calmAfter time.Duration

	mu        sync.Mutex
	listening bool   // LISTEN has returned on a connection that isn't known to be lost
	listens   uint64 // times that it returned
	nonce     string
	sentAt    time.Time

	heard    bool
	since    time.Time
	epoch    uint64 // times that the bell began to be heard
	calm     uint64
	cause    cause
	named    [reasons]bool // in the log, since the bell was last heard
	deafFor  time.Duration // in all, before the present period
	wasHeard bool
}

// start notes that Run has begun.
func (h *hearing) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since, h.cause = time.Now(), cause{reason: connecting, what: "connecting for the first time"}
}

// listen notes that LISTEN has returned. A canary from before proves nothing of this connection.
func (h *hearing) listen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listening, h.nonce = true, ""
	h.listens++
	h.ring()
}

// listened returns how often LISTEN has returned.
func (h *hearing) listened() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listens
}

// sends notes the canary that is about to be sent. Only its echo counts from now on.
func (h *hearing) sends(nonce string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nonce, h.sentAt = nonce, now
}

// echo takes the nonce of a canary that was heard, and reports whether the bell began to be heard by it.
func (h *hearing) echo(nonce string, now time.Time) (began bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if nonce != h.nonce || !h.listening { // another process's, or too late
		return false
	}
	h.nonce = ""
	roundTrip := now.Sub(h.sentAt)
	h.metrics.canary.Observe(roundTrip.Seconds())
	if h.heard {
		return false
	}
	deaf := now.Sub(h.since)
	h.heard, h.since, h.cause, h.named = true, now, cause{}, [reasons]bool{}
	h.epoch++
	h.deafFor += deaf
	h.ring()
	message := "bell is heard"
	if h.wasHeard {
		message = "bell is heard again"
	}
	h.wasHeard = true
	h.logger.Info().Dur("deaf_ms", deaf).Dur("round_trip_ms", roundTrip).Msg(message)
	return true
}

// missing reports whether the canary with this nonce is without its echo and there is a LISTEN connection to hear it.
func (h *hearing) missing(nonce string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return nonce != "" && h.nonce == nonce && h.listening
}

// listenerLost and bellLost note that a connection is gone or could not be made.
func (h *hearing) listenerLost(why cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listening = false
	h.fail(why)
}

func (h *hearing) bellLost(why cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nonce = ""
	h.fail(why)
}

// listenerCut notes that this process itself gave up the LISTEN connection, for a cause that silent has named.
func (h *hearing) listenerCut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listening = false
}

// silent notes that an echo is missing: neither connection is worth anything.
func (h *hearing) silent(why cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listening, h.nonce = false, ""
	h.fail(why)
}

// stop notes that Run ends, which is nobody's fault.
func (h *hearing) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if !h.heard {
		h.deafFor += now.Sub(h.since)
	}
	h.listening, h.nonce, h.heard, h.since = false, "", false, now
	h.cause = cause{reason: stopped, what: "the listener has ended"}
	h.ring()
}

func (h *hearing) fail(why cause) {
	now := time.Now()
	h.cause = why
	if h.heard {
		if now.Sub(h.since) >= h.calmAfter {
			h.calm++
		}
		h.heard, h.since = false, now
		h.metrics.deafPeriods.Inc()
		h.ring()
	}
	if !h.named[why.reason] {
		h.named[why.reason] = true
		h.logger.Warn().Str("cause", why.String()).Str("mend", why.mend).Msg("bell is not heard: polling instead")
	}
}

func (h *hearing) calms() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calm
}

// now returns whether the bell is heard, and which period of being heard it is.
func (h *hearing) now() (heard bool, epoch uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard, h.epoch
}

func (h *hearing) health() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	health := Health{Heard: h.heard, Since: h.since}
	if !h.heard {
		health.Cause, health.Mend = h.cause.String(), h.cause.mend
	}
	return health
}

func (h *hearing) deafSeconds() float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.heard || h.cause.reason == notStarted || h.cause.reason == stopped {
		return h.deafFor.Seconds()
	}
	return (h.deafFor + time.Since(h.since)).Seconds()
}
