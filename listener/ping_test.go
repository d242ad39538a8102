package listener_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

// awaitPings waits until both connections were pinged count times more. The LISTEN connection is asked again only when it
// has answered.
func awaitPings(t *testing.T, proxy *proxyServer, count int) {
	t.Helper()
	const ear, bell = "pgbell listener", "pgbell bell"
	ears, bells := proxy.Syncs(ear)+count, proxy.Syncs(bell)+count
	await(t, "both connections are pinged", func() bool { return proxy.Syncs(ear) >= ears && proxy.Syncs(bell) >= bells })
}

// The server tells of transactions only with what they have read, and once in a second: so canaries are among them.
func TestPingsAreNoTransactions(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	database := query[string](t, connect(t, url), `SELECT current_database()`)
	proxy, through := startProxy(t, url)
	l := start(t, listener.Config{URL: through, CanaryInterval: 1200 * time.Millisecond, PingInterval: 15 * time.Millisecond})
	l.announce(t, 5)
	await(t, "present", l.Present)
	l.sleep(t)
	outside := connect(t, pgtest.Empty(t))
	committed := func() int {
		return query[int](t, outside, `SELECT xact_commit FROM pg_stat_database WHERE datname = $1`, database)
	}
	canaries := func() int { return int(value(t, l, "pgbell_listener_canary_seconds")) }
	const enough = 3
	settled := canaries() + 1
	await(t, "what was before is told", func() bool { return canaries() >= settled })
	before, sent := committed(), canaries()
	awaitPings(t, proxy, 25*enough)
	await(t, "canaries are heard", func() bool { return canaries() >= sent+enough })
	made, sent := committed()-before, canaries()-sent
	// Each is two transactions. The last one may not be told yet, and autovacuum may have come by.
	if made < sent || made > 2*sent+25 {
		t.Errorf("%d transactions with %d canaries and at least %d pings of each connection", made, sent, 25*enough)
	}
}

// No canary is due: the ping alone tells.
func TestSilentConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	const interval, timeout = 500 * time.Millisecond, time.Second
	for role, cause := range map[string]string{
		"pgbell listener": "the connection of the listener is half-open: no answer to a ping",
		"pgbell bell":     "the connection of the bell is half-open: no answer to a ping",
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Migrated(t)
			proxy, through := startProxy(t, url)
			l := start(t, listener.Config{URL: through, CanaryInterval: time.Hour, PingInterval: interval, EchoTimeout: timeout,
				ReconnectMin: time.Second, ReconnectMax: time.Second})
			l.announce(t, 5)
			await(t, "present", l.Present)
			l.sleep(t)
			proxy.CutOnly(role)
			began := time.Now()
			l.awaitDeaf(t)
			if took := time.Since(began); took > interval+timeout+2*time.Second {
				t.Errorf("noticed after %s", took)
			}
			if health := l.Health(); !strings.Contains(health.Cause, cause) || health.Present != (role == "pgbell listener") {
				t.Errorf("health %+v", health)
			}
			l.sleep(t)
			run(t, connect(t, url), insertJob)
			l.awaitRing(t)
			if reconnects := value(t, l, "pgbell_listener_reconnects_total"); reconnects != 1 {
				t.Errorf("%v reconnects for one lost connection", reconnects)
			}
			if warnings := l.log.lines(t, "warn"); len(warnings) == 0 || !strings.Contains(warnings[0]["cause"].(string), cause) {
				t.Errorf("warnings %v", warnings)
			}
		})
	}
}

// An answer must not be taken for the result of a statement.
func TestPingsBetweenStatements(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	proxy, through := startProxy(t, url)
	l := start(t, listener.Config{URL: through, CanaryInterval: 3 * time.Millisecond, PingInterval: time.Millisecond})
	l.awaitHeard(t)
	conn := connect(t, url)
	for round := range int32(100) {
		withdraw := l.announce(t, round+1)
		l.sleep(t)
		run(t, conn, insertJob)
		l.awaitRing(t)
		await(t, "present", l.Present)
		withdraw()
	}
	awaitPings(t, proxy, 100)
	if periods := value(t, l, "pgbell_listener_deaf_periods_total"); periods != 0 {
		t.Errorf("deaf %v times", periods)
	}
}

func TestSessionPoolerAnswersPings(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	proxy, through := startProxy(t, startBouncer(t, url, "session"))
	l := start(t, listener.Config{URL: through, CanaryInterval: time.Hour, PingInterval: 5 * time.Millisecond})
	l.sleep(t)
	awaitPings(t, proxy, 20)
	run(t, connect(t, url), insertJob)
	l.awaitRing(t)
	if value(t, l, "pgbell_listener_deaf_periods_total") != 0 {
		t.Error("the bell was lost")
	}
}
