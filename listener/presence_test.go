package listener_test

import (
	"context"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

func TestPresence(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn := connect(t, url)
	first, second := start(t, listener.Config{URL: url}), start(t, listener.Config{URL: url})
	withdraw := first.announce(t, 1)
	second.announce(t, 2147483647)
	await(t, "both are present", func() bool { return first.Present() && second.Present() })
	for _, worker := range []int{1, 2147483647} {
		if held := query[int](t, conn, countPresence, worker); held != 1 {
			t.Errorf("%d presence locks of worker %d", held, worker)
		}
	}
	if err := first.Announce(t.Context(), 3); err == nil {
		t.Error("a second announcement was accepted")
	}
	if held := query[int](t, conn, countAdvisory); held != 2 {
		t.Errorf("%d advisory locks, want the two", held)
	}
	withdraw()
	if first.Present() {
		t.Error("present after being withdrawn")
	}
	await(t, "the lock is released", func() bool { return query[int](t, conn, countPresence, 1) == 0 })
	if first.Deaf() {
		t.Error("the withdrawal cost the bell")
	}
	first.announce(t, 8)
	await(t, "present as another", first.Present)
	if held := query[int](t, conn, countPresence, 8); held != 1 {
		t.Errorf("%d presence locks of worker 8", held)
	}
}

func TestPresenceEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn := connect(t, url)
	l, err := listener.New(listener.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- l.Run(ctx) }()
	go func() { ended <- l.Announce(t.Context(), 6) }()
	await(t, "present", l.Present)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if l.Present() {
		t.Error("present after the end of Run")
	}
	await(t, "the lock is free", func() bool { return query[int](t, conn, countPresence, 6) == 0 })
}

func TestPresenceFollowsTheTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	l := start(t, listener.Config{URL: url})
	l.announce(t, 6)
	await(t, "it is said that there is no table", func() bool { return len(l.log.lines(t, "warn")) == 1 })
	if l.Present() {
		t.Error("present without a table")
	}
	run(t, conn, `CREATE TABLE jobs (id int)`)
	await(t, "present", l.Present)
	before := query[uint32](t, conn, `SELECT 'jobs'::regclass::oid`)
	run(t, conn, `DROP TABLE jobs`)
	run(t, conn, `CREATE TABLE jobs (id int)`)
	await(t, "the lock has moved", func() bool { return query[int](t, conn, countPresence, 6) == 1 && l.Present() })
	if held := query[int](t, conn, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1`, before); held != 0 {
		t.Error("the old table's lock is still held")
	}
}

func TestAnnounceRefusesNobody(t *testing.T) {
	t.Parallel()
	l, err := listener.New(listener.Config{URL: "postgres://127.0.0.1/db"})
	if err != nil {
		t.Fatal(err)
	}
	for _, worker := range []int32{0, -1} {
		if err := l.Announce(t.Context(), worker); err == nil {
			t.Errorf("worker %d was accepted", worker)
		}
	}
}

// A table's oid fills all 32 bits in the end; the lock's key keeps them.
func TestPresenceKeyKeepsOidBits(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Empty(t))
	oid := uint32(4000000000)
	if locked := query[bool](t, conn, listener.Statements["lock"], int32(oid), int32(7)); !locked {
		t.Fatal("not locked")
	}
	found := query[int](t, conn, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::oid AND objid = 7 AND objsubid = 2`, oid)
	if found != 1 {
		t.Errorf("%d locks found by the oid", found)
	}
	if unlocked := query[bool](t, conn, listener.Statements["unlock"], int32(oid), int32(7)); !unlocked {
		t.Error("not unlocked")
	}
}
