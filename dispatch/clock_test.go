package dispatch_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/migrations"
)

// newSteppedFixture is a server of its own, whose clock the test steps.
func newSteppedFixture(t *testing.T) (fixture, *postgres.Clock) {
	t.Helper()
	folder, err := os.MkdirTemp("", "pgbell-clock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { // for the server's user
		t.Fatal(err)
	}
	clock, err := postgres.NewClock(folder)
	if errors.Is(err, postgres.ErrNoFakeClock) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := postgres.Start(t.Context(), postgres.Options{Env: clock.Env()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := fixture{T: t, url: server.URL("postgres")}
	if err := migrations.Up(t.Context(), f.dial(), migrations.Config{}); err != nil {
		t.Fatal(err)
	}
	f.pool = pgtest.Pool(t, f.url)
	return f, clock
}

func (f fixture) step(clock *postgres.Clock, offset time.Duration) {
	f.Helper()
	if err := clock.Set(offset); err != nil {
		f.Fatal(err)
	}
}

// A heartbeat of a moment ago is an hour old when the database's clock is set forward. Nobody is dead for that.
func TestClockSetForwardKillsNobody(t *testing.T) {
	t.Parallel()
	f, clock := newSteppedFixture(t)
	one := f.goSidecar(spec{Name: "one", Types: map[string]int{"work": 5}})
	one.await(ready, "")
	two := f.goSidecar(spec{Name: "two", Types: map[string]int{"other": 5}})
	two.await(ready, "")
	var ids []string
	for range 3 {
		id := f.enqueue("work", order{For: 4000}, 3)
		one.await(start, id)
		ids = append(ids, id)
		<-time.After(time.Second) // the heartbeat's place in its rhythm is another one each time
	}
	f.step(clock, time.Hour)
	for _, id := range ids {
		if got := f.until(id, "completed"); got.Attempts != 1 || got.Crashes != 0 {
			t.Errorf("a healthy worker's job: %+v", got)
		}
	}
	if strings.Contains(one.log.String()+two.log.String(), "dead") {
		t.Errorf("declared dead: %s%s", one.log.String(), two.log.String())
	}
}

// A heartbeat lies an hour in the future when the clock is set back. A hung worker, whose session stands, is dead a lease
// later all the same.
func TestClockSetBackKeepsNoDeadWorkerAlive(t *testing.T) {
	t.Parallel()
	f, clock := newSteppedFixture(t)
	const lease = 3 * time.Second
	hung := f.forkSidecar(spec{Name: "hung", LeaseTime: lease, Types: map[string]int{"work": 5}})
	hung.await(ready, "")
	id := f.enqueue("work", order{BlockIn: "hung"}, 3)
	hung.await(start, id)
	hung.signal(syscall.SIGSTOP)
	f.step(clock, -time.Hour)
	other := f.goSidecar(spec{Name: "other", LeaseTime: lease, Types: map[string]int{"work": 5}})
	other.await(ready, "")
	began := time.Now()
	if got := f.until(id, "completed"); got.Attempts != 2 || got.Crashes != 1 {
		t.Errorf("job: %+v", got)
	}
	if took := time.Since(began); took > lease+5*time.Second {
		t.Errorf("taken over after %s", took)
	}
}
