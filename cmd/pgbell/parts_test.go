package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func loadText(t *testing.T, text string) *config.Config {
	t.Helper()
	settings, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

func TestGroupStopsInOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var order []string
	until := func(name string) actor {
		return actor{name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runGroup(ctx, until("a"), until("b"), until("c")); err != nil || strings.Join(order, "") != "abc" {
		t.Errorf("they stopped in order %v, %v", order, err)
	}
	order = nil
	broken := errors.New("broken")
	err := runGroup(t.Context(), until("a"), actor{"b", func(context.Context) error { return broken }}, until("c"))
	if !errors.Is(err, broken) || err.Error() != "b: broken" || strings.Join(order, "") != "ac" {
		t.Errorf("they stopped in order %v, %v", order, err)
	}
	order = nil
	if err := runGroup(t.Context(), until("a"), actor{"b", func(context.Context) error { return nil }}); err != nil || len(order) != 1 {
		t.Errorf("one that ended without error left %v, %v", order, err)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;x\x07\u202e\u0085\xff\U000e0041\n\t")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range printable(text) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q comes through in %q", r, printable(text))
			}
		}
		var out bytes.Buffer
		if err := writeJSON(&out, text); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back != strings.ToValidUTF8(text, "\ufffd") && !strings.Contains(back, "\ufffd") {
			t.Fatalf("%q comes back as %q, %v", text, back, err)
		}
		for _, r := range strings.TrimSuffix(out.String(), "\n") {
			if !unicode.IsPrint(r) && r != '\ufffd' {
				t.Fatalf("%q comes through in %q", r, out.String())
			}
		}
	})
}

// Every statement is prepared against the migrated schema, in another schema than public too.
func TestStatements(t *testing.T) {
	t.Parallel()
	settings := loadText(t, "")
	conn, err := pgx.Connect(t.Context(), pgtest.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for name, statement := range map[string]string{"enqueue": sqlEnqueue, "jobs": sqlJobs, "job": sqlJob, "errors": sqlJobErrors,
		"retry": sqlRetry, "cancel": sqlCancel, "backlog": sqlBacklog, "process": sqlProcess, "read only": sqlReadOnly,
		"mark": sqlMark, "marked": sqlMarked} {
		if _, err := conn.Prepare(t.Context(), name, inSchema(statement, settings)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBacklog(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	if _, err := pool.Exec(t.Context(), `
INSERT INTO jobs (type, priority, scheduled_for)
  SELECT 'big', n % 3, now() - interval '1 min' FROM generate_series(1, 12000) n;
INSERT INTO jobs (type, scheduled_for) VALUES ('future', now() + interval '1 h'), ('old', now() - interval '1 h'), ('old', now());
INSERT INTO jobs (type, priority, scheduled_for) VALUES ('low', 5, now()), ('low', -5, now() - interval '2 h');
INSERT INTO jobs (type, status) VALUES ('done', 'completed');
INSERT INTO jobs (type) SELECT 'zz' || lpad(n::text, 4, '0') FROM generate_series(1, 250) n;
ANALYZE jobs;`); err != nil {
		t.Fatal(err)
	}
	settings := loadText(t, "")
	collector := newBacklog(pool, settings)
	rows, err := collector.read()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]backlogRow{}
	for _, row := range rows {
		found[*row.Type] = row
	}
	for name, want := range map[string][2]float64{"big": {10_000, 60}, "future": {1, 0}, "old": {2, 3600}, "low": {2, 7200}, otherTypes: {54, 0}} {
		got, ok := found[name]
		if !ok || float64(got.Pending) != want[0] || got.Oldest < want[1] || got.Oldest > want[1]+60 {
			t.Errorf("%s: %v, %g pending, the oldest for %g s, want about %v", name, ok, float64(got.Pending), got.Oldest, want)
		}
	}
	if len(rows) != backlogTypes+1 {
		t.Errorf("%d types", len(rows))
	}
	// A second scrape at once asks nobody.
	pool.Close()
	if n := testutil.CollectAndCount(collector, "pgbell_jobs_pending"); n != backlogTypes+1 {
		t.Errorf("%d series", n)
	}
}

// The backlog is read by the claim's index alone, whatever is there.
func TestBacklogPlan(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	if _, err := pool.Exec(t.Context(), `
INSERT INTO jobs (type, status) SELECT 'done', 'completed' FROM generate_series(1, 20000);
INSERT INTO jobs (type) SELECT 't' || n % 20 FROM generate_series(1, 20000) n;
ANALYZE jobs;`); err != nil {
		t.Fatal(err)
	}
	rows, err := pool.Query(t.Context(), "EXPLAIN "+inSchema(sqlBacklog, loadText(t, "")), pgx.QueryExecModeSimpleProtocol, backlogTypes, backlogCount, backlogPriorities)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	if !strings.Contains(plan, "jobs_claim") {
		t.Errorf("the plan leaves the index alone:\n%s", plan)
	}
	hops := strings.Count(plan, "Seq Scan on jobs")
	if hops > 0 {
		t.Errorf("the plan reads the whole table %d times:\n%s", hops, plan)
	}
}

func TestBacklogLabels(t *testing.T) {
	t.Parallel()
	name := func(text string) *string { return &text }
	collector := &backlog{sample: func(context.Context) ([]backlogRow, error) {
		return []backlogRow{{name("a\xff"), 1, 0}, {name("a?"), 2, 5}, {name(otherTypes), 1, 0}, {nil, 3, 0}}, nil
	}}
	collector.pending = prometheus.NewDesc("pending", "x", []string{"type"}, nil)
	collector.oldest = prometheus.NewDesc("oldest", "x", []string{"type"}, nil)
	collector.up = prometheus.NewDesc("up", "x", nil, nil)
	want := "# HELP pending x\n# TYPE pending gauge\npending{type=\"(other)\"} 4\npending{type=\"a?\"} 3\n"
	if err := testutil.CollectAndCompare(collector, strings.NewReader(want), "pending"); err != nil {
		t.Error(err)
	}
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	code := report(&out, &failure{code: exitUsage, err: errors.New("a\nb\x1b[31m"), hint: "c\x07"})
	if want := "error: a\n  b\\u001b[31m\nhint: c\\u0007\n"; code != exitUsage || out.String() != want {
		t.Errorf("%d, %q, want %q", code, out.String(), want)
	}
}
