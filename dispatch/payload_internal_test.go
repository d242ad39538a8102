package dispatch

import (
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// A job whose handler was never called pays no attempt for that, and its type's handler isn't taken for out of reach.
func TestUnreadPayloadIsNoAttempt(t *testing.T) {
	t.Parallel()
	d := smallestDispatcher(t, pgtest.Migrated(t))
	a := &attempt{apart: true, job: Job{Type: "job"}}
	d.hold(t.Context(), []*attempt{a})
	d.shared.pool.Close()
	v, answer := d.judge(a, d.call(a.ctx, a), nil)
	if v.what != whatUnavailable || v.delay != payloadAgain || answer.Outcome != outcomeNone {
		t.Errorf("it becomes %s after %s (%s), the handler's outcome is %v", v.what, v.delay, v.err, answer.Outcome)
	}
}
