package dispatch_test

import (
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/proxy"
)

// cutOff forks a sidecar that reaches the database through a proxy alone.
func (f fixture) cutOff(s spec) (*sidecar, *proxy.Proxy) {
	f.Helper()
	between, through, err := proxy.InFrontOf(f.Context(), f.url)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = between.Close() })
	s.URL = through
	return f.forkSidecar(s), between
}

// newDirectFixture is one whose work goes through no pooler, as the proxy stands before the server.
func newDirectFixture(t *testing.T) fixture {
	t.Helper()
	url := pgtest.Migrated(t)
	return fixture{T: t, pool: pgtest.DirectPool(t, url), url: url}
}

// The job ends while its sidecar is cut off, and what came of it is written when that is over, under the lease that still stands.
func TestCutShorterThanTheLease(t *testing.T) {
	t.Parallel()
	for name, variant := range map[string]struct {
		direction  proxy.Direction
		noPresence bool
	}{
		"both directions": {proxy.Both, false}, "to the server": {proxy.ToServer, false}, "from the server": {proxy.ToClient, false},
		"without presence": {proxy.Both, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newDirectFixture(t)
			f.countCompletions()
			s, between := f.cutOff(spec{Name: "cut off", LeaseTime: 15 * time.Second, NoPresence: variant.noPresence, Types: map[string]int{"work": 10}})
			other := f.goSidecar(spec{Name: "other", LeaseTime: 15 * time.Second, Types: map[string]int{"other": 1}})
			s.await(ready, "")
			other.await(ready, "")
			f.awaitServerAge(15 * time.Second)
			f.eventually("it is present", func() bool { return variant.noPresence || f.count(countPresence, s.worker()) == 1 })
			ended, running := f.enqueue("work", order{For: 1000}, 3), f.enqueue("work", order{For: 8000}, 3)
			s.await(start, ended)
			s.await(start, running)
			between.Cut(variant.direction)
			cut := time.Now()
			s.await(end, ended)
			<-time.After(time.Until(cut.Add(4 * time.Second)))
			between.Heal()
			healed := time.Now()
			for _, id := range []string{ended, running} {
				if got := f.until(id, "completed"); got.Attempts != 1 || got.Crashes != 0 || got.Errors != 0 || string(got.Result) != `{"by": "cut off"}` {
					t.Errorf("job: %+v", got)
				}
				if id == ended {
					t.Logf("settled %.1f s after the cut's end", time.Since(healed).Seconds())
				}
			}
			f.until(f.enqueue("work", order{}, 3), "completed")
			if n := f.count(`SELECT count(*) FROM completions WHERE job_id = ANY ($1)`, []string{ended, running}); n != 2 {
				t.Errorf("%d completions of two jobs", n)
			}
			for id, all := range runs(t, nil, s) {
				if len(all) != 1 {
					t.Errorf("job %s ran %d times: %+v", id, len(all), all)
				}
			}
		})
	}
}

// Cut off for longer, it cancels its jobs before another takes them, claims none meanwhile, and comes back by itself.
func TestCutLongerThanTheLease(t *testing.T) {
	t.Parallel()
	const lease = 6 * time.Second
	f := newDirectFixture(t)
	s, between := f.cutOff(spec{Name: "cut off", LeaseTime: lease, Types: map[string]int{"work": 10, "own": 1}})
	s.await(ready, "")
	f.awaitServerAge(lease)
	running := f.enqueue("work", order{BlockIn: "cut off"}, 3)
	s.await(start, running)
	before := s.worker()
	other := f.goSidecar(spec{Name: "other", LeaseTime: lease, Types: map[string]int{"work": 10}})
	other.await(ready, "")
	between.Cut(proxy.Both)
	cut := sharedNow()
	cancelled, taken := s.await(end, running), other.await(start, running)
	t.Logf("cancelled %.1f s after the cut, taken over after %.1f s", (cancelled.At - cut).Seconds(), (taken.At - cut).Seconds())
	if cancelled.Cause != dispatch.ErrLeaseEnding.Error() || cancelled.At-cut > lease || cancelled.At >= taken.At {
		t.Errorf("cancelled %s after the cut, because %q; taken over after %s", cancelled.At-cut, cancelled.Cause, taken.At-cut)
	}
	if taken.At-cut > lease+5*time.Second {
		t.Errorf("taken over only %s after the cut", taken.At-cut)
	}
	if got := f.until(running, "completed"); got.Attempts != 2 || got.Crashes != 1 || string(got.Result) != `{"by": "other"}` {
		t.Errorf("job: %+v", got)
	}
	own := f.enqueue("own", order{}, 3)
	between.Heal()
	healed := time.Now()
	if got := f.until(own, "completed"); got.Attempts != 1 {
		t.Errorf("job while it was cut off: %+v", got)
	}
	t.Logf("claims again %.1f s after the cut's end", time.Since(healed).Seconds())
	f.eventually("it is another worker", func() bool {
		return f.count(`SELECT count(*) FROM job_workers WHERE name = 'cut off' AND dead_at IS NULL AND id <> $1`, before) == 1
	})
	runs(t, nil, s, other)
}
