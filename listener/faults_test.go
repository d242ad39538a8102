package listener_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/listener"
)

// Not parallel: nothing else may start goroutines meanwhile.
func TestCancelEndsRunWhileTheNetworkIsDead(t *testing.T) {
	direct := pgtest.Migrated(t)
	// Registered before the proxy's end, so that it looks when that is gone.
	known := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, known) })
	proxy, url := startProxy(t, direct)
	l, err := listener.New(listener.Config{URL: url, CanaryInterval: 50 * time.Millisecond, EchoTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	await(t, "the bell is heard", func() bool { return !l.Deaf() })
	proxy.Cut(bothWays)
	await(t, "a canary is under way", func() bool { return proxy.Swallowed() > 0 })
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run returned %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("run took %s to return", took)
	}
}

func TestLostConnections(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"pgbell listener", "pgbell bell"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Migrated(t)
			l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
			l.announce(t, 7)
			await(t, "present", l.Present)
			l.awaitRing(t)
			conn := connect(t, url)
			run(t, conn, terminate, role)
			await(t, "the loss is noticed", func() bool { return value(t, l, "pgbell_listener_deaf_periods_total") == 1 })
			l.awaitRing(t)
			l.awaitHeard(t)
			await(t, "present again", l.Present)
			if held := query[int](t, conn, countPresence, 7); held != 1 {
				t.Errorf("%d presence locks", held)
			}
			// The ring of having become heard; it was there before Deaf said so.
			l.awaitRing(t)
			l.sleep(t)
			run(t, conn, insertJob)
			l.awaitRing(t)

			warnings := l.log.lines(t, "warn")
			if len(warnings) != 1 || !strings.Contains(warnings[0]["cause"].(string), role[len("pgbell "):]) {
				t.Errorf("want one warning that names the connection, not %v", warnings)
			}
			if said := l.log.lines(t, "info"); len(said) != 2 {
				t.Errorf("want to hear of being heard twice: %v", said)
			}
		})
	}
}

// The row is committed while nobody listens; the ring of the new LISTEN stands for it.
func TestRowWhileDisconnectedRings(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	proxy, through := startProxy(t, url)
	l := start(t, listener.Config{URL: with(t, through, "connect_timeout", "1"), CanaryInterval: 100 * time.Millisecond, EchoTimeout: 200 * time.Millisecond})
	l.awaitHeard(t)
	asleep, err := l.Sleep(t.Context(), func(context.Context, bool) (bool, error) { return false, nil })
	if !asleep || err != nil {
		t.Fatalf("Sleep = %v, %v", asleep, err)
	}
	proxy.Cut(bothWays)
	l.awaitDeaf(t)
	run(t, connect(t, url), insertJob)
	for len(l.Rings()) > 0 {
		<-l.Rings()
	}
	proxy.Mend()
	l.awaitRing(t)
	l.awaitHeard(t)
	called := false
	if _, err := l.Sleep(t.Context(), func(context.Context, bool) (bool, error) { called = true; return true, nil }); err != nil || !called {
		t.Errorf("no recheck after the loss: %v", err)
	}
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	url := server.URL("postgres")
	conn := connect(t, url)
	run(t, conn, `CREATE TABLE jobs (id int)`)
	l := start(t, listener.Config{URL: url})
	l.announce(t, 1)
	await(t, "present", l.Present)
	for _, mode := range []struct {
		name   string
		signal func() error
	}{
		{"fast", func() error { return server.Halt(postgres.Fast) }},
		{"immediate", func() error { return server.Halt(postgres.Immediate) }},
	} {
		if err := mode.signal(); err != nil {
			t.Fatal(err)
		}
		l.awaitDeaf(t)
		await(t, "not present", func() bool { return !l.Present() })
		reconnects := value(t, l, "pgbell_listener_reconnects_total")
		await(t, "some attempts fail", func() bool { return value(t, l, "pgbell_listener_reconnects_total") > reconnects+10 })
		if err := server.Launch(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.awaitHeard(t)
		await(t, "present again", l.Present)
		conn = connect(t, url)
		for len(l.Rings()) > 0 {
			<-l.Rings()
		}
		run(t, conn, `SELECT pg_notify('pgbell_public', '')`)
		l.awaitRing(t)
	}
	// Per outage at most one line for the loss and one for each kind of why there is no connection.
	if warnings := l.log.lines(t, "warn"); len(warnings) < 2 || len(warnings) > 6 {
		t.Errorf("%d warnings of two outages: %v", len(warnings), warnings)
	}
}

// With the default times deafness is noticed within 15 s: those of pings add up to less. Here the sum is seen to hold for
// canaries.
func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	proxy, through := startProxy(t, url)
	const interval, timeout = 500 * time.Millisecond, time.Second
	l := start(t, listener.Config{URL: through, CanaryInterval: interval, EchoTimeout: timeout})
	l.announce(t, 5)
	await(t, "present", l.Present)
	proxy.Cut(bothWays)
	began := time.Now()
	l.awaitDeaf(t)
	if took := time.Since(began); took > interval+timeout+2*time.Second {
		t.Errorf("noticed after %s", took)
	}
	if l.Present() {
		t.Error("present over a dead connection")
	}
	proxy.Mend()
	l.sleep(t)
	conn := connect(t, url)
	run(t, conn, insertJob)
	l.awaitRing(t)
	// The server believes the old bell connection alive, and with it the old lock, until its keepalives fail. Here it is
	// the proxy that keeps it alive; then the lock can be had.
	if l.Present() {
		t.Error("present although another session holds the lock")
	}
	run(t, conn, `SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = 5
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	await(t, "present again", l.Present)
	if held := query[int](t, conn, countPresence, 5); held != 1 {
		t.Errorf("%d presence locks", held)
	}
}

// Only the LISTEN connection is dead: the canary is sent well, and not heard.
func TestDeafEarIsNoticed(t *testing.T) {
	t.Parallel()
	proxy, through := startProxy(t, pgtest.Migrated(t))
	l := start(t, listener.Config{URL: through, CanaryInterval: 200 * time.Millisecond, EchoTimeout: 400 * time.Millisecond,
		ReconnectMin: time.Second, ReconnectMax: time.Second})
	l.awaitHeard(t)
	proxy.CutOnly("pgbell listener")
	l.awaitDeaf(t)
	health := l.Health()
	if health.Heard || !strings.Contains(health.Cause, "half-open") || !strings.Contains(health.Mend, "database.listen_url") {
		t.Errorf("health %+v", health)
	}
	l.awaitHeard(t)
	if health := l.Health(); !health.Heard || health.Cause != "" || health.Mend != "" || time.Since(health.Since) > time.Minute {
		t.Errorf("health %+v", health)
	}
	if warnings := l.log.lines(t, "warn"); len(warnings) != 1 {
		t.Errorf("want one warning: %v", warnings)
	}
}

// LISTEN itself never returns; pgxlisten alone would wait for ever.
func TestStuckListenIsCut(t *testing.T) {
	t.Parallel()
	proxy, through := startProxy(t, pgtest.Migrated(t))
	proxy.CutAt("listen ")
	l := start(t, listener.Config{URL: through, EchoTimeout: 200 * time.Millisecond})
	await(t, "it is said", func() bool { return strings.Contains(l.Health().Cause, "LISTEN did not return") })
	proxy.CutAt("")
	l.awaitHeard(t)
}

func TestStandbyIsNamed(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Halt(postgres.Fast); err != nil {
		t.Fatal(err)
	}
	signal := filepath.Join(filepath.Dir(server.Log()), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := server.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := start(t, listener.Config{URL: server.URL("postgres")})
	await(t, "it is said", func() bool {
		health := l.Health()
		return health.Cause == "the server is read-only: a standby, or a primary that was demoted" && strings.Contains(health.Mend, "target_session_attrs=read-write")
	})
	run(t, connect(t, server.URL("postgres")), `SELECT pg_promote()`)
	l.awaitHeard(t)
	if warnings := l.log.lines(t, "warn"); len(warnings) != 1 {
		t.Errorf("want one warning: %v", warnings)
	}
}

func TestTransactionPoolerIsNamed(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	through := startBouncer(t, url, "transaction")
	l := start(t, listener.Config{URL: through, EchoTimeout: 300 * time.Millisecond})
	l.announce(t, 9)
	conn := connect(t, url)
	most := 0
	await(t, "several attempts fail", func() bool {
		if asleep, err := l.Sleep(t.Context(), nothing); !asleep || err != nil {
			t.Errorf("Sleep of a deaf listener = %v, %v", asleep, err)
		}
		most = max(most, query[int](t, conn, countAdvisory))
		return value(t, l, "pgbell_listener_reconnects_total") > 6
	})
	if !l.Deaf() || l.Present() {
		t.Error("heard or present through a transaction pooler")
	}
	if most > 0 {
		t.Error("a session lock was taken through a transaction pooler")
	}
	health := l.Health()
	if !strings.Contains(health.Cause, "a transaction pooler stands in between (the connection was given process") || !strings.Contains(health.Mend, "database.listen_url") {
		t.Errorf("health %+v", health)
	}
	warnings := l.log.lines(t, "warn")
	if len(warnings) != 1 || !strings.Contains(fmt.Sprint(warnings[0]["cause"]), "transaction pooler") {
		t.Errorf("want one warning that names the pooler: %v", warnings)
	}
	// No server process of the pooler listens.
	listening := connect(t, with(t, through, "default_query_exec_mode", "exec"))
	for range 5 {
		if n := query[int](t, listening, `SELECT count(*) FROM pg_listening_channels()`); n != 0 {
			t.Errorf("a LISTEN was left in the pooler")
		}
	}
	// Nothing was SET on the pooler's server connections.
	pooled := connect(t, with(t, through, "default_query_exec_mode", "exec"))
	for setting, want := range map[string]string{"statement_timeout": "0", "lock_timeout": "0"} {
		if got := query[string](t, pooled, `SELECT current_setting($1)`, setting); got != want {
			t.Errorf("%s = %s leaked into the pooler", setting, got)
		}
	}
}

func TestSessionPoolerIsHeard(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: startBouncer(t, url, "session")})
	l.announce(t, 4)
	await(t, "present", l.Present)
	l.sleep(t)
	conn := connect(t, url)
	run(t, conn, insertJob)
	l.awaitRing(t)
	if held := query[int](t, conn, countPresence, 4); held != 1 {
		t.Errorf("%d presence locks", held)
	}
}

func TestNoConnectionIsSaidAndRetried(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	good, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, url, want string }{
		{"wrong password", fmt.Sprintf("postgres://%s:s3cr3tish@%s:%d/%s?sslmode=disable", good.User, good.Host, good.Port, good.Database), "password authentication failed"},
		{"unknown host", "postgres://joe:s3cr3tish@no-such-host.invalid/db?sslmode=disable", "no-such-host.invalid"},
		{"nobody there", "postgres://joe:s3cr3tish@" + freeAddress(t) + "/db?sslmode=disable", "refused"},
		{"missing database", fmt.Sprintf("postgres://%s:%s@%s:%d/no_such_database?sslmode=disable", good.User, good.Password, good.Host, good.Port), "no_such_database"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := start(t, listener.Config{URL: c.url})
			await(t, "several attempts fail", func() bool { return value(t, l, "pgbell_listener_reconnects_total") > 8 })
			health := l.Health()
			if !l.Deaf() || !strings.Contains(health.Cause, c.want) || health.Mend == "" {
				t.Errorf("health %+v", health)
			}
			warnings := l.log.lines(t, "warn")
			if len(warnings) != 1 || !strings.Contains(fmt.Sprint(warnings[0]["cause"]), c.want) {
				t.Errorf("want one warning with %q: %v", c.want, warnings)
			}
			if strings.Contains(l.log.String()+health.Cause, "s3cr3tish") || strings.Contains(l.log.String()+health.Cause, good.Password) {
				t.Error("a password is shown")
			}
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}
