package main

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
	"github.com/pgbell/pgbell/internal/proxy"
	"github.com/pgbell/pgbell/migrations"
)

const (
	causeReadOnly = "the server is read-only: a standby, or a primary that was demoted"
	mendReadOnly  = "lead database.url and database.listen_url to the primary, or name all servers in them with " +
		"target_session_attrs=read-write; it is tried again until the server may be written to"
)

// twoServers are a primary with pgbell installed, and a standby that follows it.
type twoServers struct {
	primary, standby *postgres.Server
}

func startTwo(t *testing.T) twoServers {
	t.Helper()
	primary, err := postgres.Start(t.Context(), postgres.Options{Major: 15})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = primary.Stop() })
	conn, err := pgx.Connect(t.Context(), primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := migrations.Up(t.Context(), conn, migrations.Config{}); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Stop() })
	return twoServers{primary, standby}
}

// both is a URL that names both servers.
func (s twoServers) both(t *testing.T) string {
	t.Helper()
	parsed, err := url.Parse(s.primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	parsed.Host += "," + hostOf(t, s.standby)
	parsed.RawQuery += "&target_session_attrs=read-write"
	return parsed.String()
}

func hostOf(t *testing.T, server *postgres.Server) string {
	t.Helper()
	parsed, err := url.Parse(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Host
}

// promote makes the standby a primary, and returns a pool on it.
func (s twoServers) promote(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.DirectPool(t, s.standby.URL("postgres"))
	if _, err := pool.Exec(t.Context(), `SELECT pg_promote()`); err != nil {
		t.Fatal(err)
	}
	return pool
}

// refuseWrites has the primary refuse writes, while it and its connections go on to live.
func (s twoServers) refuseWrites(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for _, statement := range []string{`ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// What becomes of the old primary, when the standby is promoted.
var ends = map[string]struct {
	end    func(*testing.T, twoServers)
	mend   string
	causes []string
}{
	"stopped hard": {func(t *testing.T, s twoServers) {
		if err := s.primary.Halt(postgres.Immediate); err != nil {
			t.Fatal(err)
		}
	}, mendNone, []string{"the connection of the listener was lost: *", "the connection of the bell was lost: *"}},
	"demoted": {func(t *testing.T, s twoServers) {
		if err := s.primary.Halt(postgres.Fast); err != nil {
			t.Fatal(err)
		}
		if err := s.primary.Demote(); err != nil {
			t.Fatal(err)
		}
		if err := s.primary.Launch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}, mendNone, []string{"the connection of the listener was lost: *", "the connection of the bell was lost: *"}},
	"alive and read-only": {func(t *testing.T, s twoServers) { s.refuseWrites(t) }, mendReadOnly, []string{causeReadOnly}},
}

// The URL names both servers, or it leads to one name that is moved.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, old := range ends {
		for _, moved := range []bool{false, true} {
			way := map[bool]string{false: ", two hosts", true: ", a name that is moved"}[moved]
			t.Run(name+way, func(t *testing.T) {
				t.Parallel()
				servers := startTwo(t)
				databaseURL := servers.both(t)
				lead := func() {}
				if moved {
					between, through, err := proxy.InFrontOf(t.Context(), servers.primary.URL("postgres"))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = between.Close() })
					databaseURL, lead = through, func() { between.Lead(hostOf(t, servers.standby)) }
				}
				s := runSidecar(t, databaseURL, trueJobs)
				s.awaitAsleep()
				began := time.Now()
				old.end(t, servers)
				pool := servers.promote(t)
				lead()
				t.Logf("the standby is promoted after %.1f s", time.Since(began).Seconds())
				promoted := time.Now()
				job := insert(t, pool, "t", "{}")
				eventually(t, "deafness is noticed", func() bool { return len(s.logged(deafMessage)) > 0 })
				line := s.logged(deafMessage)[0]
				t.Logf("noticed after %.1f s", time.Since(began).Seconds())
				if time.Since(began) > noticedWithin {
					t.Errorf("noticed after %s", time.Since(began))
				}
				if cause, _ := line["cause"].(string); line["mend"] != old.mend || !matchesOne(cause, old.causes) {
					t.Errorf("it was said: %v", line)
				}
				s.awaitHealed(promoted, pool, job)
				if code, body := s.get("/readyz"); code != 200 {
					t.Errorf("/readyz: %d %s", code, body)
				}
			})
		}
	}
}

func matchesOne(text string, patterns []string) bool {
	for _, pattern := range patterns {
		start, open := strings.CutSuffix(pattern, "*")
		if text == pattern || open && strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

// Nothing else is there to go on with: a sidecar says so, and works once the server does.
func TestReadOnlyServer(t *testing.T) {
	t.Parallel()
	const failed = "database statement failed, trying again"
	t.Run("a standby from the start", func(t *testing.T) {
		t.Parallel()
		servers := startTwo(t)
		s := runSidecar(t, servers.standby.URL("postgres"), trueJobs)
		line := s.awaitLog(failed)
		if line["cause"] != causeReadOnly || !strings.Contains(line["mend"].(string), "target_session_attrs=read-write") {
			t.Errorf("it was said: %v", line)
		}
		s.awaitDeaf(time.Now(), mendReadOnly, causeReadOnly)
		if code, body := s.get("/readyz"); code != 503 || !strings.Contains(body, causeReadOnly) {
			t.Errorf("/readyz: %d %s", code, body)
		}
		if s.metric("pgbell_listener_heard") != 0 {
			t.Error("the metric says that the bell is heard")
		}
		promoted := time.Now()
		pool := servers.promote(t)
		s.awaitHealed(promoted, pool, insert(t, pool, "t", "{}"))
	})
	t.Run("a primary that becomes so", func(t *testing.T) {
		t.Parallel()
		servers := startTwo(t)
		pool := pgtest.DirectPool(t, servers.primary.URL("postgres"))
		s := runSidecar(t, servers.primary.URL("postgres"), trueJobs)
		s.awaitAsleep()
		began := time.Now()
		servers.refuseWrites(t)
		s.awaitDeaf(began, mendReadOnly, causeReadOnly)
		eventually(t, "/readyz says so", func() bool {
			code, body := s.get("/readyz")
			return code == 503 && strings.Contains(body, "the database can't be written to: it is read-only")
		})
		for _, statement := range []string{`ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`} {
			if _, err := pool.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		pool.Reset()
		mended := time.Now()
		eventually(t, "it may be written to", func() bool {
			var readOnly bool
			return pool.QueryRow(t.Context(), sqlReadOnly).Scan(&readOnly) == nil && !readOnly
		})
		s.awaitHealed(mended, pool, insert(t, pool, "t", "{}"))
	})
}
