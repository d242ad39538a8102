package listener

import (
	"testing"
	"time"
)

func TestNextCanary(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		interval        time.Duration
		heard, fullness bool
		jobs            uint32
		want            time.Duration
	}{
		{"idle", 0, false, false, 1, time.Minute},
		{"something heard", 0, true, false, 1, usedInterval},
		{"queue full", 0, false, true, 1, usedInterval},
		{"no table", 0, false, false, 0, usedInterval},
		{"shorter anyway", time.Second, true, true, 0, time.Second},
	} {
		l, err := New(Config{URL: "postgres://127.0.0.1/db", CanaryInterval: c.interval})
		if err != nil {
			t.Fatal(err)
		}
		b := &bell{Listener: l, jobs: c.jobs, fullQueue: c.fullness, canaryAt: time.Now()}
		if c.heard {
			(&ear{Listener: l}).useQueue()
		}
		if got := b.nextCanary().Sub(b.canaryAt); got != c.want {
			t.Errorf("%s: the next canary after %s, want %s", c.name, got, c.want)
		}
	}
}

// Deafness is noticed within 15 s.
func TestDefaultsNoticeInTime(t *testing.T) {
	t.Parallel()
	l, err := New(Config{URL: "postgres://127.0.0.1/db"})
	if err != nil {
		t.Fatal(err)
	}
	if late := l.config.PingInterval + l.config.EchoTimeout; late >= 15*time.Second {
		t.Errorf("deafness is noticed after %s", late)
	}
}
