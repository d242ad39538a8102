package migrations_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// psql runs a script as a person would, without stopping at errors unless told to.
func psql(t testing.TB, database, script string, args ...string) (output string, err error) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Fatal("psql is needed: apt-get install postgresql-client")
	}
	command := exec.CommandContext(t.Context(), path, append([]string{"--no-psqlrc", "--quiet", database}, args...)...)
	command.Stdin = strings.NewReader(script)
	text, err := command.CombinedOutput()
	return string(text), err
}

func printed(t testing.TB, config migrations.Config) string {
	t.Helper()
	var script bytes.Buffer
	if err := migrations.Print(&script, config, 0); err != nil {
		t.Fatal(err)
	}
	return script.String()
}

func TestPrintIsWhatUpDoes(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"public", "It's 100% odd"} {
		config := migrations.Config{Schema: schema}
		database := pgtest.Empty(t)
		if output, err := psql(t, database, printed(t, config)); err != nil || output != "" {
			t.Fatalf("psql: %v: %s", err, output)
		}
		conn := connect(t, database)
		if report := status(t, conn, schema); !report.Current {
			t.Errorf("not current: %+v", report)
		}
		if err := migrations.Check(t.Context(), conn, schema); err != nil {
			t.Error(err)
		}
		if path := one[string](t, conn, "SHOW search_path"); path != `"$user", public` {
			t.Errorf("search_path is left at %s", path)
		}
		before := inventory(t, conn, schema)
		up(t, conn, config)
		if after := inventory(t, conn, schema); after != before {
			t.Errorf("up after print changed\n%s\nto\n%s", before, after)
		}
		other := connect(t, pgtest.Empty(t))
		up(t, other, config)
		if direct := inventory(t, other, schema); direct != before {
			t.Errorf("print made\n%s\nup\n%s", before, direct)
		}
		// Again: refused, and nothing changes.
		output, _ := psql(t, database, printed(t, config))
		if !strings.Contains(output, "is applied already") {
			t.Errorf("the second time: %s", output)
		}
		if after := inventory(t, conn, schema); after != before {
			t.Errorf("the second time changed\n%s\nto\n%s", before, after)
		}
	}
}

// psql goes on after an error: a table that can't be adopted still is left alone by all that follows.
func TestPrintRefusesClashes(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	conn := connect(t, database)
	run(t, conn, recipe+"INSERT INTO jobs (type, payload, attempts) VALUES ('a', '{}', -1)")
	before := inventory(t, conn, "public")
	output, _ := psql(t, database, printed(t, migrations.Config{}))
	if !strings.Contains(output, "1 row(s) break jobs_attempts_is_not_negative") || !strings.Contains(output, "comes after migration 1") {
		t.Errorf("psql said: %s", output)
	}
	if after := inventory(t, conn, "public"); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}

func TestPrintFrom(t *testing.T) {
	t.Parallel()
	var script bytes.Buffer
	if err := migrations.Print(&script, migrations.Config{}, 1); err != nil || strings.Count(script.String(), "\nCOMMIT;\n") != migrations.Version-1 {
		t.Errorf("%v: %d transactions", err, strings.Count(script.String(), "\nCOMMIT;\n"))
	}
	for _, from := range []int{-1, migrations.Version + 1} {
		if err := migrations.Print(&script, migrations.Config{}, from); err == nil {
			t.Errorf("from %d is taken", from)
		}
	}
}

func TestPrintDir(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there []string
		want  string
	}{
		"fresh":    {nil, `^20\d{12}_pgbell_job_status.sql 20\d{12}_pgbell_jobs.sql \d+_pgbell_worker_deaths.sql$`},
		"supabase": {[]string{"20990101235959_jobs.sql", "20200101000000_first.sql"}, `^20990101235960_pgbell_job_status.sql 20990101235961_pgbell_jobs.sql \d+_pgbell_worker_deaths.sql$`},
		"numbered": {[]string{"0009_a.sql", "0010_b.sql", "seed.sql"}, `^0011_pgbell_job_status.sql 0012_pgbell_jobs.sql \d+_pgbell_worker_deaths.sql$`},
		"plain":    {[]string{"9_a.sql", "10_b.sql"}, `^11_pgbell_job_status.sql 12_pgbell_jobs.sql \d+_pgbell_worker_deaths.sql$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "supabase", "migrations")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range test.there {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			written, err := migrations.PrintDir(dir, migrations.Config{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, path := range written {
				names = append(names, filepath.Base(path))
			}
			if !regexp.MustCompile(test.want).MatchString(strings.Join(names, " ")) || !slices.IsSorted(names) {
				t.Errorf("wrote %v", names)
			}
			database := pgtest.Empty(t)
			for _, path := range written {
				if output, err := psql(t, database, "", "-v", "ON_ERROR_STOP=1", "-f", path); err == nil || !strings.Contains(output, "must run in one transaction") {
					t.Errorf("outside of a transaction: %v: %s", err, output)
				}
				// The tool notes what it has run in the same transaction, by its own path.
				if output, err := psql(t, database, "", "-v", "ON_ERROR_STOP=1", "-1", "-f", path, "-c", "CREATE TABLE IF NOT EXISTS notes (n int); INSERT INTO notes VALUES (1)"); err != nil {
					t.Errorf("psql: %v: %s", err, output)
				}
			}
			conn := connect(t, database)
			if !status(t, conn, "").Current {
				t.Error("not current")
			}
			if n := one[int](t, conn, "SELECT count(*) FROM public.notes"); n != migrations.Version {
				t.Errorf("%d notes", n)
			}
			if again, err := migrations.PrintDir(dir, migrations.Config{}, 0); err != nil || len(again) != 0 {
				t.Errorf("the second time: wrote %v, %v", again, err)
			}
			if other, err := migrations.PrintDir(dir, migrations.Config{Schema: "Other One"}, 0); err != nil || len(other) != migrations.Version || !strings.HasSuffix(other[0], "_pgbell_other_one_job_status.sql") {
				t.Errorf("another schema: wrote %v, %v", other, err)
			}
			if err := os.WriteFile(written[0], []byte("edited"), 0o644); err != nil {
				t.Fatal(err)
			}
			if again, err := migrations.PrintDir(dir, migrations.Config{}, 0); err == nil || len(again) != 0 || !strings.Contains(err.Error(), "another text") {
				t.Errorf("an edited file: wrote %v, %v", again, err)
			}
		})
	}
}
