package demo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/demo"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// The whole thing on a server of its own: every scenario, each job compared with what it should have come to.
func TestRunEndsAsExpected(t *testing.T) {
	t.Parallel()
	summary, err := demo.Run(t.Context(), demo.Config{For: 3 * time.Second, View: demo.NewLines(t.Output())})
	if err != nil {
		t.Fatal(err)
	}
	if !summary.OK || summary.UnexpectedCount != 0 {
		t.Errorf("unexpected: %q", summary.Unexpected)
	}
	if summary.Inserted < 60 || summary.Verified != summary.Inserted || summary.Unfinished != 0 || summary.Interrupted {
		t.Errorf("not all of at least 60 jobs were verified: %+v", summary)
	}
	if summary.Inserted != summary.Completed+summary.Failed || summary.Failed < 4 || summary.Retried < 4 || summary.Refused < 1 || summary.RolledBack < 1 {
		t.Errorf("a scenario is missing: %+v", summary)
	}
	for _, jobType := range []string{"send_email", "resize_image", "book_payment", "update_search"} {
		if counts := summary.Types[jobType]; counts.Completed == 0 || counts.Failed == 0 || counts.Retried == 0 {
			t.Errorf("%s: want some completed, failed and retried: %+v", jobType, counts)
		}
	}
	if summary.PickupMS.Count < 30 || summary.P50 <= 0 || summary.P99 < summary.P50 || summary.FirstCompletedS <= 0 {
		t.Errorf("pickup times are missing: %+v", summary)
	}
}

// onFrame calls a function at each frame, while jobs are inserted and run.
type onFrame struct {
	intro chan demo.Intro
	frame func(demo.Snapshot)
}

func (onFrame) Interval() time.Duration        { return 20 * time.Millisecond }
func (v onFrame) Intro(intro demo.Intro)       { v.intro <- intro }
func (v onFrame) Frame(shot demo.Snapshot)     { v.frame(shot) }
func (onFrame) Close()                         {}
func newOnFrame(f func(demo.Snapshot)) onFrame { return onFrame{make(chan demo.Intro, 1), f} }

const tamperSQL = `
INSERT INTO pgbell_demo.demo_payments (job_id) SELECT id FROM pgbell_demo.jobs
  WHERE type = 'book_payment' AND status = 'completed' ORDER BY id LIMIT 1;
DELETE FROM pgbell_demo.jobs WHERE id = (SELECT id FROM pgbell_demo.jobs
  WHERE type = 'update_search' AND status = 'completed' ORDER BY id LIMIT 1);
UPDATE pgbell_demo.jobs SET status = 'failed' WHERE id = (SELECT id FROM pgbell_demo.jobs
  WHERE type = 'send_email' AND status = 'completed' ORDER BY id LIMIT 1);
INSERT INTO pgbell_demo.jobs (type, payload, scheduled_for) VALUES ('resize_image', '{"demo": 1000001}', now() + interval '1 hour');`

// An effect that happened twice, a lost row, a wrong status and a row that nobody inserted are each found.
func TestRunFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	var once sync.Once
	view := newOnFrame(func(shot demo.Snapshot) {
		done := map[string]int{}
		for _, counts := range shot.Types {
			done[counts.Type] = counts.Completed
		}
		if done["book_payment"]*done["update_search"]*done["send_email"] > 0 {
			once.Do(func() { execute(t, url, tamperSQL) })
		}
	})
	summary, err := demo.Run(t.Context(), demo.Config{For: 3 * time.Second, DatabaseURL: url, View: view})
	if err != nil {
		t.Fatal(err)
	}
	if summary.OK {
		t.Error("all is said to be as it should be")
	}
	found := strings.Join(summary.Unexpected, "\n")
	for _, want := range []string{
		"(plain): number of effects is 2, not 1", "its row is gone", "status is failed, not completed",
	} {
		if strings.Count(found, want) != 1 {
			t.Errorf("want %q once in:\n%s", want, found)
		}
	}
	// One row is missing and one too many: the count alone would have noticed nothing.
	if summary.UnexpectedCount != 3 {
		t.Errorf("%d things were unexpected, want 3:\n%s", summary.UnexpectedCount, found)
	}
}

func TestRunFindsRowsThatNobodyInserted(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	var once sync.Once
	view := newOnFrame(func(demo.Snapshot) {
		once.Do(func() {
			execute(t, url, `INSERT INTO pgbell_demo.jobs (type, payload, scheduled_for) VALUES ('resize_image', '{"demo": 1000001}', now() + interval '1 hour')`)
		})
	})
	summary, err := demo.Run(t.Context(), demo.Config{For: time.Second, DatabaseURL: url, View: view})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("the table has %d jobs of the stream, not the %d that were inserted", summary.Inserted+1, summary.Inserted)
	if summary.OK || len(summary.Unexpected) != 1 || summary.Unexpected[0] != want {
		t.Errorf("unexpected: %q, want %q", summary.Unexpected, want)
	}
}

// A user's database: a schema of its own, which is gone afterwards; a job of the user's own, of a type that nobody knows;
// an end by interrupt.
func TestRunInAnothersDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var once sync.Once
	var visits []string
	view := newOnFrame(func(shot demo.Snapshot) {
		once.Do(func() {
			execute(t, url, `INSERT INTO pgbell_demo.jobs (type, payload) VALUES ('hello', '{"name":"you"}')`)
		})
		if visits = shot.Visits; len(visits) > 0 && shot.Total.Completed > 10 {
			interrupt()
		}
	})
	summary, err := demo.Run(ctx, demo.Config{DatabaseURL: url, View: view})
	if err != nil {
		t.Fatal(err)
	}
	if !summary.OK || !summary.Interrupted || summary.Verified != summary.Completed+summary.Failed || summary.Verified < 10 {
		t.Errorf("%+v", summary)
	}
	if summary.Others != 1 || len(visits) != 1 || visits[0] != `hello {"name": "you"} ran, attempt 1 of 3: {"greeting":"hello, you"}` {
		t.Errorf("the user's job was not shown: %d, %q", summary.Others, visits)
	}
	if intro := <-view.intro; strings.Contains(intro.Psql, password(t, url)) || !strings.Contains(intro.Psql, "INSERT INTO pgbell_demo.jobs") {
		t.Errorf("the psql command tells the password or not the schema: %s", intro.Psql)
	}
	var schemas int
	if err := connect(t, url).QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname = 'pgbell_demo'`).Scan(&schemas); err != nil || schemas != 0 {
		t.Errorf("the schema is still there: %d, %v", schemas, err)
	}
}

func TestRunLeavesAnExistingSchemaAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	execute(t, url, `CREATE SCHEMA pgbell_demo; CREATE TABLE pgbell_demo.precious ()`)
	_, err := demo.Run(t.Context(), demo.Config{For: time.Second, DatabaseURL: url})
	if err == nil || !strings.Contains(err.Error(), `schema pgbell_demo exists: drop it`) || !strings.Contains(err.Error(), `--schema`) {
		t.Errorf("error %v", err)
	}
	execute(t, url, `SELECT FROM pgbell_demo.precious`)
}

func TestRunRefusesBadConfigs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config demo.Config
		want   []string
	}{
		"short and fast":          {demo.Config{For: time.Millisecond, Rate: 1e9}, []string{"for: 1ms is less than a second", "rate: 1e+09 is not between"}},
		"negative":                {demo.Config{For: -time.Second, Rate: -1}, []string{"for: -1s", "rate: -1"}},
		"schema without database": {demo.Config{Schema: "mine"}, []string{"schema: the throwaway server"}},
		"public":                  {demo.Config{DatabaseURL: "postgres://127.0.0.1/x", Schema: "public"}, []string{"schema: public can't be dropped"}},
		"quoted schema":           {demo.Config{DatabaseURL: "postgres://127.0.0.1/x", Schema: `a"b`}, []string{"a double quote"}},
		"dotted schema":           {demo.Config{DatabaseURL: "postgres://127.0.0.1/x", Schema: "a.b"}, []string{"without a dot"}},
		"bad url":                 {demo.Config{DatabaseURL: "postgres://u:sec%ret@127.0.0.1/x"}, []string{"the database URL can't be parsed"}},
	} {
		_, err := demo.Run(t.Context(), test.config)
		var mistake *demo.ConfigError
		if !errors.As(err, &mistake) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sec") && name == "bad url" {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql); err != nil {
		t.Error(err)
	}
}

func password(t *testing.T, url string) string {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if config.Password == "" {
		return "no password to be found"
	}
	return config.Password
}
