package listener_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/listener"
)

// Not parallel: nothing else may start goroutines meanwhile.
func TestCancelEndsRunWithoutLeftovers(t *testing.T) {
	url := pgtest.Migrated(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := listener.New(listener.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	await(t, "the bell is heard", func() bool { return !l.Deaf() })
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run returned %v, want nil", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("run took %s to return", took)
	}
	if !l.Deaf() {
		t.Error("the bell is heard after the end of Run")
	}
	if err := l.Run(t.Context()); err == nil {
		t.Error("a second Run was accepted")
	}
}

func TestInsertRings(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	if !l.Deaf() {
		t.Error("heard before the first echo")
	}
	l.sleep(t)
	conn := connect(t, url)

	var slowest time.Duration
	for range 20 {
		run(t, conn, insertJob)
		began := time.Now()
		l.awaitRing(t)
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("slowest ring after %s", slowest)
	if slowest > 500*time.Millisecond {
		t.Errorf("a ring took %s", slowest)
	}
	// An update that makes work appear rings, others don't.
	run(t, conn, `UPDATE jobs SET status = 'processing'`)
	run(t, conn, `UPDATE jobs SET status = 'completed'`)
	run(t, conn, `SELECT pg_notify('pgbell_public', 'marker')`)
	await(t, "the marker is heard", func() bool { return value(t, l, "pgbell_listener_unknown_total") == 1 })
	select {
	case <-l.Rings():
		t.Error("a claim or a settle rang")
	default:
	}
	run(t, conn, `UPDATE jobs SET status = 'pending'`)
	l.awaitRing(t)
	run(t, conn, `SELECT ring_jobs()`)
	l.awaitRing(t)
}

func TestCancelIsHeard(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url})
	l.awaitHeard(t)
	conn := connect(t, url)
	id := query[string](t, conn, insertJob+` RETURNING id::text`)
	run(t, conn, `SELECT claim_jobs()`)
	run(t, conn, `SELECT cancel_job($1)`, id)
	select {
	case <-l.Cancels():
	case <-time.After(patience):
		t.Fatal("no cancel came")
	}
}

func TestNobodyReads(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, AwakeAbove: 1e6})
	l.sleep(t)
	conn := connect(t, url)
	for range 200 {
		run(t, conn, insertJob)
		run(t, conn, `SELECT pg_notify('pgbell_public', 'cancel')`)
	}
	// All were handled, so the read loop was never stuck, and echoes keep coming.
	await(t, "all rings are counted", func() bool {
		return value(t, l, "pgbell_listener_rings_total") == 200 && value(t, l, "pgbell_listener_cancels_total") == 200
	})
	echoes := value(t, l, "pgbell_listener_canary_seconds")
	await(t, "another echo", func() bool { return value(t, l, "pgbell_listener_canary_seconds") > echoes })
	l.awaitRing(t)
	<-l.Cancels()
	select {
	case <-l.Rings():
		t.Error("many rings left more than one token")
	case <-l.Cancels():
		t.Error("many cancels left more than one token")
	default:
	}
}

func TestForeignNotifications(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	l.awaitRing(t)
	conn := connect(t, url)
	for _, payload := range []string{"hello", "canary:FOREIGN", "canary:", `'; DROP TABLE jobs; --`, strings.Repeat("x", 7999)} {
		run(t, conn, `SELECT pg_notify('pgbell_public', $1)`, payload)
	}
	await(t, "the unknown ones are counted", func() bool { return value(t, l, "pgbell_listener_unknown_total") == 4 })
	select {
	case <-l.Rings():
		t.Error("an unknown payload rang")
	case <-l.Cancels():
		t.Error("an unknown payload cancelled")
	default:
	}
	if got := value(t, l, "pgbell_listener_canary_seconds"); got != 1 {
		t.Errorf("%v echoes, want its own alone", got)
	}
}

func TestSchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	schema := "Bell's \"own\""
	run(t, conn, `CREATE SCHEMA `+pgx.Identifier{schema}.Sanitize())
	run(t, conn, `CREATE TABLE `+pgx.Identifier{schema, "jobs"}.Sanitize()+` (id int)`)
	l := start(t, listener.Config{URL: url, Schema: schema})
	l.announce(t, 3)
	await(t, "present", l.Present)
	l.awaitRing(t)
	run(t, conn, `SELECT pg_notify($1, '')`, "pgbell_"+schema)
	l.awaitRing(t)
}

func TestSleepDeafReturnsAtOnce(t *testing.T) {
	t.Parallel()
	l, err := listener.New(listener.Config{URL: "postgres://nobody@127.0.0.1:1/none"})
	if err != nil {
		t.Fatal(err)
	}
	asleep, err := l.Sleep(t.Context(), func(context.Context, bool) (bool, error) {
		t.Error("recheck was called by a deaf listener")
		return false, nil
	})
	if !asleep || err != nil {
		t.Errorf("Sleep = %v, %v", asleep, err)
	}
}

func TestConnectionsNameThemselves(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	l := start(t, listener.Config{URL: url, ApplicationName: "shop"})
	l.awaitHeard(t)
	conn := connect(t, url)
	names := query[string](t, conn, `SELECT string_agg(application_name, ', ' ORDER BY application_name) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	if names != "shop bell, shop listener" {
		t.Errorf("connections %q", names)
	}
}

func TestStatementsPrepare(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Migrated(t))
	for name, sql := range listener.Statements {
		if _, err := conn.Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewNamesAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := listener.New(listener.Config{
		URL: "postgres://joe:se%zzcret@host/db", Schema: strings.Repeat("s", 57),
		CanaryInterval: -1, PingInterval: -1, EchoTimeout: -1, AwakeAbove: math.NaN(), Quiet: -1, ReconnectMin: time.Minute, ReconnectMax: time.Second,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"Schema", "CanaryInterval", "PingInterval", "EchoTimeout", "AwakeAbove", "Quiet", "ReconnectMax", "URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
	for _, secret := range []string{"zzcret", "joe"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows %q: %v", secret, err)
		}
	}
	if _, err := listener.New(listener.Config{ConnConfig: &pgx.ConnConfig{}}); err == nil {
		t.Error("a ConnConfig that pgx would panic at was accepted")
	}
	parsed, err := pgx.ParseConfig("postgres://joe@127.0.0.1/db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listener.New(listener.Config{ConnConfig: parsed, URL: "postgres://127.0.0.1/db"}); err == nil {
		t.Error("both URL and ConnConfig were accepted")
	}
	if _, err := listener.New(listener.Config{ConnConfig: parsed}); err != nil {
		t.Errorf("a parsed ConnConfig: %v", err)
	}
}

func TestMetricsLint(t *testing.T) {
	t.Parallel()
	l, err := listener.New(listener.Config{URL: "postgres://127.0.0.1/db"})
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.CollectAndLint(l.Collector())
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if count := testutil.CollectAndCount(l.Collector()); count != 18 {
		t.Errorf("%d series, want 18", count)
	}
}

// value of a metric: of a histogram its count, of a vector the sum.
func value(t *testing.T, l *running, name string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(l.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			found = true
			sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return sum
}

// An idle_session_timeout of the database doesn't end these connections, which are idle by nature.
func TestIdleConnectionsStay(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	conn := connect(t, url)
	database := query[string](t, conn, `SELECT current_database()`)
	run(t, conn, `ALTER DATABASE `+pgx.Identifier{database}.Sanitize()+` SET idle_session_timeout = '300ms'`)
	l := start(t, listener.Config{URL: url, CanaryInterval: time.Minute})
	l.awaitHeard(t)
	for range 2 {
		ordinary := connect(t, url)
		if _, err := ordinary.WaitForNotification(t.Context()); err == nil || !strings.Contains(err.Error(), "57P05") {
			t.Fatalf("an ordinary connection ended by %v", err)
		}
	}
	if l.Deaf() || value(t, l, "pgbell_listener_deaf_periods_total") != 0 {
		t.Error("a connection was lost")
	}
}
