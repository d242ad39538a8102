package chaos

import (
	"testing"
	"time"
)

// A time by the database's clock belongs to the phase in which that clock showed it.
func TestHostTimeWhileTheClockIsStepped(t *testing.T) {
	t.Parallel()
	began := time.Now()
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	x := &index{clocks: []Event{
		{At: at(10), Kind: Clock, Offset: time.Hour},
		{At: at(20), Kind: Clock, Offset: 0},
		{At: at(30), Kind: Clock, Offset: -time.Hour},
		{At: at(40), Kind: Clock, Offset: 3 * time.Hour},
	}}
	for host, offset := range map[int]time.Duration{5: 0, 15: time.Hour, 25: 0, 35: -time.Hour, 45: 3 * time.Hour} {
		if got := x.hostTime(at(host).Add(offset)); !got.Equal(at(host)) {
			t.Errorf("%d s became %s", host, got.Sub(began))
		}
	}
}
