package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/config"
)

const full = `
database:
  url: postgres://app:s3cr3t@db.example:5432/shop
  listen_url: postgres://app:s3cr3t@direct.example/shop
  schema: jobs
  max_conns: 12
concurrency: 20
http: {addr: ":8080"}
log:
  level: debug
  format: json
poll: 1m
lease_time: 20s
dead_after: 2s
manual_lease: 1h
shutdown_grace: 0s
retention: {completed: 1w, failed: forever, cancelled: 1d12h}
handlers:
  send_email:
    webhook:
      url: http://127.0.0.1:3000/jobs
      secret: [whsec_bmV3, "${OLD_SECRET}"]
      headers: {Authorization: "Bearer ${OLD_SECRET}"}
      allow_held: true
    concurrency: 5
    timeout: 30s
    backoff: {base: 1s, factor: 2, cap: 1m, jitter: 0}
    max_payload: 64kB
  resize.image: &child
    subprocess:
      command: [./resize, "--quality=$${Q}", "${HOME}/x"]
      dir: /srv
      env: {TOKEN: "${OLD_SECRET}"}
  "*":
    sqlfunc: {function: public.work}
`

func TestFullFile(t *testing.T) {
	t.Parallel()
	got, err := config.Parse("pgbell.yaml", []byte(full), []string{"OLD_SECRET=whsec_b2xk", "HOME=/home/app"})
	if err != nil {
		t.Fatal(err)
	}
	backoff := config.Backoff{Base: 30 * time.Second, Factor: 4, Cap: 24 * time.Hour, Jitter: 0.1}
	want := map[string]config.Handler{
		"send_email": {
			Webhook: &config.Webhook{URL: "http://127.0.0.1:3000/jobs", Secrets: []string{"whsec_bmV3", "whsec_b2xk"},
				Headers: map[string]string{"Authorization": "Bearer whsec_b2xk"}, AllowHeld: true},
			Concurrency: 5, Timeout: 30 * time.Second, MaxPayload: 64_000,
			Backoff: config.Backoff{Base: time.Second, Factor: 2, Cap: time.Minute, Jitter: 0},
		},
		"resize.image": {
			Subprocess: &config.Subprocess{Command: []string{"./resize", "--quality=${Q}", "/home/app/x"}, Dir: "/srv",
				Env: map[string]string{"TOKEN": "whsec_b2xk"}},
			Concurrency: 18, Timeout: 5 * time.Minute, MaxPayload: 4 << 20, Backoff: backoff,
		},
		"*": {SQLFunc: &config.SQLFunc{Function: "public.work"}, Concurrency: 8, Timeout: 5 * time.Minute, MaxPayload: 4 << 20, Backoff: backoff},
	}
	if !reflect.DeepEqual(got.Handlers, want) {
		t.Errorf("handlers are\n%+v, want\n%+v", got.Handlers, want)
	}
	if want := (config.Retention{Completed: 7 * 24 * time.Hour, Failed: -1, Cancelled: 36 * time.Hour}); got.Retention != want {
		t.Errorf("retention is %+v, want %+v", got.Retention, want)
	}
	if want := (config.Database{URL: "postgres://app:s3cr3t@db.example:5432/shop",
		ListenURL: "postgres://app:s3cr3t@direct.example/shop", Schema: "jobs", MaxConns: 12}); got.Database != want {
		t.Errorf("database is %+v, want %+v", got.Database, want)
	}
	if got.Concurrency != 20 || got.HTTP.Addr != ":8080" || got.Log != (config.Log{Level: "debug", Format: "json"}) ||
		got.Poll != time.Minute || got.LeaseTime != 20*time.Second || got.DeadAfter != 2*time.Second ||
		got.ManualLease != time.Hour || got.ShutdownGrace != 0 {
		t.Errorf("scalars are %+v", got)
	}
	if origin := got.Origin(`handlers."resize.image".subprocess.dir`).String(); origin != "file pgbell.yaml:32:12" {
		t.Errorf("origin is %q", origin)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n", "handlers:\n", "database: {}\n"} {
		got, err := config.Parse("f", []byte(text), nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got.Concurrency != 100 || got.HTTP.Addr != "127.0.0.1:9797" || got.Poll != 30*time.Second || got.LeaseTime != 15*time.Second ||
			got.DeadAfter != 1500*time.Millisecond || got.ManualLease != 15*time.Minute || got.ShutdownGrace != 30*time.Second ||
			got.Retention != (config.Retention{Completed: 168 * time.Hour, Failed: 720 * time.Hour, Cancelled: 168 * time.Hour}) ||
			got.Database.Schema != "public" || got.Log.Level != "info" || got.Log.Format != "auto" {
			t.Errorf("%q: defaults are %+v", text, got)
		}
	}
}

func TestRetentionOfNothing(t *testing.T) {
	t.Parallel()
	got, err := config.Parse("f", []byte("retention: {completed: 0s, failed: forever}\n"), nil)
	if err != nil || got.Retention.Completed != 0 || got.Retention.Failed >= 0 {
		t.Errorf("retention is %+v, %v", got.Retention, err)
	}
}

func TestAnchorsAndMerge(t *testing.T) {
	t.Parallel()
	got, err := config.Parse("f", []byte(`
handlers:
  a: &a
    webhook: {url: "http://h/a"}
    timeout: 7s
    concurrency: 3
  b:
    <<: *a
    timeout: 9s
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := got.Handlers["b"]; b.Timeout != 9*time.Second || b.Concurrency != 3 || b.Webhook == nil || b.Webhook.URL != "http://h/a" {
		t.Errorf("b is %+v", b)
	}
}

// Each file has one mistake, told with its place and a hint.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const way = "handlers:\n  a:\n    webhook: {url: 'http://h/'}\n"
	for _, test := range []struct{ name, text, where, message, hint string }{
		{"unknown key", "concurency: 5\n", "f:1:1", `unknown key "concurency"`, `did you mean "concurrency"?`},
		{"unknown nested key", "http:\n  adr: ':1'\n", "f:2:3", `unknown key "adr" in http`, `did you mean "addr"?`},
		{"key of another place", "listen_url: x\n", "f:1:1", `unknown key "listen_url"`, "did you mean database.listen_url?"},
		{"nothing near", "zzzzzzzzzz: x\n", "f:1:1", `unknown key "zzzzzzzzzz"`, "the keys here are concurrency, database"},
		{"wrong type", "concurrency: many\n", "f:1:14", "concurrency must be a whole number, not text", ""},
		{"fraction", "concurrency: 1.5\n", "f:1:14", "concurrency must be a whole number, not a number", ""},
		{"list for text", "log: {level: [debug]}\n", "f:1:14", "log.level must be text (put it in quotes), not a list", ""},
		{"number for text", "database:\n  schema: 5\n", "f:2:11", "database.schema must be text (put it in quotes), not a number", ""},
		{"text for a mapping", "log: debug\n", "f:1:6", "log must be a mapping, not text", ""},
		{"list for the file", "- a\n", "f:1:1", "the file must be a mapping, not a list", ""},
		{"duplicate", "poll: 1s\nlog: {}\npoll: 2s\n", "f:3:1", `the key "poll" is given twice: first in line 1`, ""},
		{"duplicate type", way + "  a: {}\n", "f:4:3", `the key "a" is given twice: first in line 2`, ""},
		{"no unit", "poll: 30\n", "f:1:7", `poll: "30" has no unit`, ""},
		{"no duration", "poll: soon\n", "f:1:7", `poll: "soon" is not a duration such as`, ""},
		{"out of range", "lease_time: 2h\n", "f:1:13", "lease_time: 2h is not between 1s and 1h", ""},
		{"range of two", "dead_after: 20s\n", "f:1:13", "dead_after: dead_after (20s) must be less than lease_time (15s)", ""},
		{"level", "log: {level: inof}\n", "f:1:14", `log.level: "inof" is not one of trace, debug`, `did you mean "info"?`},
		{"address", "http: {addr: localhost}\n", "f:1:14", `http.addr: "localhost" is not host:port`, "write 127.0.0.1:9797"},
		{"port", "http: {addr: ':99999'}\n", "f:1:14", `has no port between 0 and 65535`, ""},
		{"schema", "database: {schema: pg_x}\n", "f:1:20", `database.schema: "pg_x": the name is reserved by Postgres`, ""},
		{"no value", "poll:\n", "f:1:", "poll has no value", "take the key out"},
		{"retention below nothing", "retention: {failed: -1s}\n", "f:1:21", "is not a duration such as", ""},
		{"unset variable", "log:\n  level: ${NOPE}\n", "f:2:10", "log.level: the variable NOPE is not set", "$${"},
		{"open variable", "log: {level: '${NOPE'}\n", "f:1:14", "${ has no closing }", "$${"},
		{"odd variable", "log: {level: '${A:-x}'}\n", "f:1:14", "${A:-x} doesn't name a variable", "$${"},
		{"no way", "handlers: {a: {timeout: 1s}}\n", "f:1:12", "handlers.a doesn't say how its jobs run", "webhook, subprocess, sqlfunc"},
		{"two ways", way + "    sqlfunc: {function: f}\n", "f:2:3", "handlers.a says sqlfunc and webhook: a type runs in one way", ""},
		{"no url", "handlers: {a: {webhook: {secret: whsec_x}}}\n", "f:1:25", "handlers.a.webhook.url is missing", ""},
		{"no http", "handlers: {a: {webhook: {url: 'ftp://h/'}}}\n", "f:1:31", "handlers.a.webhook.url: is not an http or https URL", "write http://"},
		{"bool", "handlers: {a: {webhook: {url: 'http://h/', allow_held: 'yes'}}}\n", "f:1:56", "allow_held must be true or false, not text", ""},
		{"a shell line", "handlers: {a: {subprocess: {command: 'ls -l'}}}\n", "f:1:38", "handlers.a.subprocess.command must be a list", "no shell"},
		{"number in command", "handlers: {a: {subprocess: {command: [ls, 5]}}}\n", "f:1:43", "handlers.a.subprocess.command[1] must be text", ""},
		{"empty command", "handlers: {a: {subprocess: {command: []}}}\n", "f:1:38", "names no program", ""},
		{"own variable", "handlers: {a: {subprocess: {command: [x], env: {PGBELL_LEASE: y}}}}\n", "f:1:49", "names with PGBELL_ are pgbell's own", ""},
		{"call", "handlers: {a: {sqlfunc: {function: 'f()'}}}\n", "f:1:36", "without parentheses", ""},
		{"backoff", way + "    backoff: {base: 1h, cap: 1s}\n", "f:4:14", "cap (1s) is less than base (1h)", ""},
		{"factor", way + "    backoff: {factor: 0.5}\n", "f:4:23", "0.5 is not between 1 and 100", ""},
		{"jitter", way + "    backoff: {jitter: .nan}\n", "f:4:23", "must be a number", ""},
		{"size", way + "    max_payload: 4M\n", "f:4:18", `"4M" is not a size such as`, ""},
		{"huge", way + "    max_payload: 4GiB\n", "f:4:18", "4GiB is not between", ""},
		{"long type", "handlers: {" + strings.Repeat("x", 201) + ": {}}\n", "f:1:12", "a job type has 1 to 200 characters, this one 201", ""},
		{"bare star", "handlers:\n  *: {}\n", "f:2:", "", `quote the star: "*":`},
		{"tab", "http:\n\taddr: ':1'\n", "f:2:", "not YAML", "spaces, not with tabs"},
		{"open bracket", "http: {addr: x\n", "f:1:", "not YAML", ""},
		{"variable in braces", "log: {level: x${Y}}\n", "f:1:", "not YAML", "in quotes"},
		{"two documents", "poll: 1s\n---\npoll: 2s\n", "f:3:1", "a second document", ""},
		{"bomb", "handlers: {a: &x {<<: [*x, *x]}}\n", "f:1:", "", ""},
		{"tag", "poll: !!str 5s\n", "f:1:7", "tags have no meaning here", ""},
		{"unknown alias", "poll: *x\n", "f:1:7", "the alias *x has no anchor &x before it", ""},
		{"not text", "poll: \xff\n", "f:1:1", "the line is not UTF-8 text", ""},
		{"deep", strings.Repeat("[", 5000), "f:1:", "nested too deep", ""},
		{"deep dashes", strings.Repeat("- ", 5000), "f:1:", "nested too deep", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("f", []byte(test.text), nil)
			var mistakes config.Mistakes
			if !errors.As(err, &mistakes) {
				t.Fatalf("err is %v", err)
			}
			if len(mistakes) != 1 && test.name != "bomb" {
				t.Fatalf("%d mistakes: %v", len(mistakes), err)
			}
			got := mistakes[0]
			if !strings.HasPrefix(got.Where, test.where) || !strings.Contains(got.Message, test.message) {
				t.Errorf("got  %s: %s\nwant %s: %s", got.Where, got.Message, test.where, test.message)
			}
			if !strings.Contains(got.Hint, test.hint) && !strings.Contains(got.Message, test.hint) {
				t.Errorf("hint is %q, want %q", got.Hint, test.hint)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pgbell.yaml")
	write(t, path, "concurency: 5\npoll: 30\nhandlers:\n  a: {webhook: {ulr: x}}\n")
	_, err := config.Load(config.Options{Path: path, Environ: []string{"PGBELL_HTTP_ADDR=nowhere", "PGBELL_CONCURRENCY=x"},
		Flags: []config.Flag{{Name: "--log-level", Key: "log.level", Value: "loud"}}})
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	var wheres []string
	for _, mistake := range mistakes {
		wheres = append(wheres, strings.TrimPrefix(mistake.Where, path+":"))
	}
	if got, want := strings.Join(wheres, " "), "1:1 2:7 4:17 PGBELL_CONCURRENCY PGBELL_HTTP_ADDR --log-level"; got != want {
		t.Errorf("mistakes at %s, want %s\n%v", got, want, err)
	}
}

func TestSnippet(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("f", []byte("http:\n  adr: ':1'\n"), nil)
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	if got, want := mistakes[0].Snippet, "    2 |   adr: ':1'\n      |   ^"; got != want {
		t.Errorf("snippet is\n%s\nwant\n%s", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "c.yaml")
	write(t, path, "database: {schema: from_file, url: 'postgres://file/x'}\nconcurrency: 1\npoll: 1s\nretention: {completed: 1d}\n")
	write(t, filepath.Join(folder, "url"), "postgres://secretfile/x\n")
	environ := []string{"PGBELL_CONFIG=" + path, "PGBELL_SCHEMA=from_alias", "PGBELL_CONCURRENCY=2", "PGBELL_POLL=", "DATABASE_URL=postgres://alias/x",
		"PGBELL_RETENTION_COMPLETED=forever", "PGBELL_DATABASE_LISTEN_URL_FILE=" + filepath.Join(folder, "url")}
	got, err := config.Load(config.Options{Environ: environ, Flags: []config.Flag{{Name: "--log-level", Key: "log.level", Value: "warn"}}})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][2]string{
		"database.schema":     {"from_alias", "env PGBELL_SCHEMA"},
		"database.url":        {"postgres://alias/x", "env DATABASE_URL"},
		"database.listen_url": {"postgres://secretfile/x", "env PGBELL_DATABASE_LISTEN_URL_FILE"},
		"concurrency":         {"2", "env PGBELL_CONCURRENCY"},
		"poll":                {"1s", "file " + path + ":3:7"},
		"retention.completed": {"forever", "env PGBELL_RETENTION_COMPLETED"},
		"log.level":           {"warn", "flag --log-level"},
		"log.format":          {"auto", "default"},
	} {
		found := false
		for _, setting := range got.Settings() {
			if setting.Key() == key {
				found = true
				if setting.Value != want[0] || setting.Origin.String() != want[1] {
					t.Errorf("%s is %v from %s, want %s from %s", key, setting.Value, setting.Origin, want[0], want[1])
				}
			}
		}
		if !found {
			t.Errorf("%s is not shown", key)
		}
	}
	// The name that follows from the key wins over the alias.
	got, err = config.Load(config.Options{Environ: append(environ, "PGBELL_DATABASE_URL=postgres://own/x", "PGBELL_DATABASE_SCHEMA=own"),
		Flags: []config.Flag{{Name: "--schema", Key: "database.schema", Value: "flag"}}})
	if err != nil || got.Database.URL != "postgres://own/x" || got.Database.Schema != "flag" {
		t.Errorf("database is %+v, %v", got.Database, err)
	}
}

func TestEnvironMistakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ environ, want string }{
		{"PGBELL_POLL=5", `PGBELL_POLL: "5" has no unit`},
		{"PGBELL_CONCURRENCY=0", "PGBELL_CONCURRENCY: 0 is not between 1 and 10000"},
		{"PGBELL_DATABASE_URL_FILE=/nonexistent/url", "PGBELL_DATABASE_URL_FILE: read /nonexistent/url: no such file or directory"},
		{"DATABASE_URL_FILE=/dev/null", "DATABASE_URL_FILE: /dev/null is empty"},
		{"PGBELL_CONFIG=/nonexistent/c.yaml", "PGBELL_CONFIG: read /nonexistent/c.yaml: no such file or directory"},
		{"DATABASE_URL=postgres://u:hush@h:port/x", "DATABASE_URL: is not a connection string"},
	} {
		_, err := config.Load(config.Options{Environ: []string{test.environ}})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: error is %v, want %s", test.environ, err, test.want)
		}
	}
	_, err := config.Load(config.Options{Environ: []string{"DATABASE_URL=postgres://h/x", "DATABASE_URL_FILE=/dev/null"}})
	if err == nil || !strings.Contains(err.Error(), "DATABASE_URL: is set, and DATABASE_URL_FILE is set too") {
		t.Errorf("both: error is %v", err)
	}
}

func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	got, err := config.Load(config.Options{Environ: []string{"PGBELL_HTTP_ADR=:1", "PGBELL_JOB_ID=x", "PGBELL_LEASE=x", "PGBELL_SERVICE_HOST=10.0.0.1",
		"PGBELL_PORT_9797_TCP=tcp://10.0.0.1:9797", "PGBELL_POLL=1s", "OTHER=x"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{`the variable "PGBELL_HTTP_ADR" is not one that pgbell knows; did you mean PGBELL_HTTP_ADDR?`}; !reflect.DeepEqual(got.Warnings, want) {
		t.Errorf("warnings are %q, want %q", got.Warnings, want)
	}
}

// No way of getting something wrong shows a secret.
func TestSecretsStayHidden(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"database:\n  url: postgres://app:HUSH@db:notaport/x\n",
		"database:\n  urll: postgres://app:HUSH@db/x\n",
		"database:\n  url: postgres://app:HU@HUSH@db/x%zz\n",
		"database:\n  url: [postgres://app:HUSH@db/x]\n",
		"database:\n  url: 'host=h password=HUSH port=x'\n",
		"database: {url: 'host=h password=HUSH', nope: 1}\n",
		"database: {url: 'postgres://a:HUSH@h/x'\n",
		"database:\n  url: HUSH\n",
		"handlers: {a: {webhook: {url: 'http://u:HUSH@', secret: whsec_HUSH}}}\n",
		"handlers: {a: {webhook: {ulr: 'http://h/', secret: HUSH}}}\n",
		"handlers:\n  a:\n    webhook:\n      url: http://h\n      secret:\n      - {HUSH: 1}\n",
		"handlers: {a: {webhook: {url: 'http://h/', secrett: whsec_HUSH}}}\n",
		"handlers: {a: {subprocess: {command: [x], env: {Q: [HUSH]}}}}\n",
		"handlers:\n  a:\n    webhook:\n      url: http://h\n      secret: 'whsec_HUSH\n",
	} {
		_, err := config.Parse("f", []byte(text), nil)
		var mistakes config.Mistakes
		if !errors.As(err, &mistakes) {
			t.Errorf("%q: no mistake", text)
			continue
		}
		for _, mistake := range mistakes {
			if all := mistake.Error() + mistake.Snippet + mistake.Hint; strings.Contains(all, "HUSH") {
				t.Errorf("%q shows the secret: %s", text, all)
			}
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	got, err := config.Parse("pgbell.yaml", []byte(full), []string{"OLD_SECRET=whsec_b2xk", "HOME=/home/app"})
	if err != nil {
		t.Fatal(err)
	}
	text := config.Format(got.Settings())
	for _, secret := range []string{"s3cr3t", "bmV3", "b2xk"} {
		if strings.Contains(text, secret) {
			t.Errorf("the printed configuration shows %s:\n%s", secret, text)
		}
	}
	for _, want := range []string{
		`  url: "postgres://app:***@db.example:5432/shop" # file pgbell.yaml:3:8`,
		`      secret: ["***", "***"]`,
		`      command: ["./resize", "--quality=${Q}", "/home/app/x"]`,
		`  "*":`, "  failed: forever",
	} {
		if !strings.Contains(text, want+"\n") && !strings.Contains(text, want+" ") {
			t.Errorf("the printed configuration lacks %s:\n%s", want, text)
		}
	}
	// What is printed is a configuration again.
	text = strings.ReplaceAll(text, "${Q}", "$${Q}")
	again, err := config.Parse("printed", []byte(text), nil)
	if err != nil {
		t.Fatalf("the printed configuration is not one: %v\n%s", err, text)
	}
	if again.Retention != got.Retention || len(again.Handlers) != len(got.Handlers) || again.Handlers["send_email"].Backoff != got.Handlers["send_email"].Backoff {
		t.Errorf("the printed configuration means something else:\n%s", text)
	}
}

func TestDatabaseOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "poll: 1s\nhandlers: {a: {webhook: {url: 'http://h/', secret: '${NOT_HERE}'}}}\n")
	got, err := config.Load(config.Options{Path: path, DatabaseOnly: true})
	if err != nil || got.Handlers != nil || got.Poll != time.Second {
		t.Errorf("config is %+v, %v", got, err)
	}
	if _, err := config.Load(config.Options{Path: path}); err == nil {
		t.Error("an unset variable passed")
	}
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets")
	write(t, path, "whsec_one\nwhsec_two\n")
	got, err := config.Parse("f", []byte("handlers: {a: {webhook: {url: 'http://h/', secret_file: "+path+"}}}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if secrets := got.Handlers["a"].Webhook.Secrets; !reflect.DeepEqual(secrets, []string{"whsec_one", "whsec_two"}) {
		t.Errorf("secrets are %q", secrets)
	}
	if strings.Contains(config.Format(got.Settings()), "whsec_") {
		t.Error("a secret is printed")
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"7d": 168 * time.Hour, "1w": 168 * time.Hour, "1.5s": 1500 * time.Millisecond,
		"1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond, "0": 0, "1h30m": 90 * time.Minute, "2m": 2 * time.Minute, "0.5d": 12 * time.Hour} {
		got, err := config.ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
		again, err := config.ParseDuration(config.FormatDuration(want))
		if err != nil || again != want {
			t.Errorf("%v is written %s and read %v, %v", want, config.FormatDuration(want), again, err)
		}
	}
	for _, text := range []string{"", "5", "s", "-1s", "1x", "1.2.3s", "1e9d", "99999w", "1s ", "d7", "999999999999999999999999h", "."} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"4MB": 4_000_000, "4MiB": 4 << 20, "65536": 65536, "1.5KiB": 1536, "12B": 12, "1 GiB": 1 << 30, "64kb": 64_000} {
		got, err := config.ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
		if again, err := config.ParseSize(config.FormatSize(want)); err != nil || again != want {
			t.Errorf("%d is written %s", want, config.FormatSize(want))
		}
	}
	for _, text := range []string{"", "MB", "4M", "-1MB", "1e9", "99999GiB", "4 mega", "1.2.3MB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, seed := range []string{"", "a: &a [*a]", "handlers: &h {a: *h}", "handlers: {a: &x {<<: *x}}", "? x\n: y", "poll: |\n  5s\n",
		"poll: >-\n", "handlers: {a: &x {<<: [*x, *x]}}", "<<: [{poll: 5s}, *x]", "a: !!binary x", "\"\\u0000\": 1", "handlers:\n  \"*\":\n    subprocess: {command: [\"$${A}\", ${B}]}", "%YAML 1.2\n---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := config.Parse("f", text, []string{"B=b", "OLD_SECRET=x", "HOME=/"})
		if got == nil {
			t.Fatal("no config")
		}
		if err != nil {
			var mistakes config.Mistakes
			if !errors.As(err, &mistakes) || len(mistakes) == 0 {
				t.Fatalf("error is %T", err)
			}
			for _, mistake := range mistakes {
				if mistake.Message == "" {
					t.Fatal("a mistake says nothing")
				}
			}
			return
		}
		printed := config.Format(got.Settings())
		if strings.Contains(printed, "***") {
			return // what was hidden is no value
		}
		if _, err := config.Parse("f", []byte(strings.ReplaceAll(printed, "$", "$$")), nil); err != nil {
			t.Fatalf("the printed configuration is not one: %v\n%s", err, config.Format(got.Settings()))
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultConcurrencyLeavesRoom(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"handlers: {a: {subprocess: {command: ['true']}}}":                                                                       100,
		"handlers: {a: {subprocess: {command: ['true']}}, b: {subprocess: {command: ['true']}}}":                                 90,
		"concurrency: 1\nhandlers: {a: {subprocess: {command: ['true']}}, b: {subprocess: {command: ['true']}}}":                 1,
		"concurrency: 5\nhandlers: {a: {subprocess: {command: ['true']}}, b: {subprocess: {command: ['true']}}}":                 4,
		"concurrency: 5\nhandlers: {a: {subprocess: {command: ['true']}, concurrency: 5}, b: {subprocess: {command: ['true']}}}": 5,
	} {
		parsed, err := config.Parse("test", []byte(text), nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := parsed.Handlers["a"].Concurrency; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
