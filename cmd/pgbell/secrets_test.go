package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
)

const (
	mark        = "HUSHHUSH" // in every secret
	payloadMark = "PRIVATELY"
)

// secretConfig has a secret wherever there can be one, and handlers that fail in many ways.
func secretConfig(database, server string) string {
	return fmt.Sprintf(`
database: {url: %q}
log: {level: trace, format: json}
shutdown_grace: 1s
handlers:
  echo:
    webhook:
      url: "http://robert:%[3]s-password@%[2]s/echo?token=%[3]s-token"
      secret: whsec_HUSHHUSHHUSHHUSHHUSHHUSHHUSHHUSHHUSHHUSHHUU=
      headers: {Authorized: "Bearer %[3]s-header"}
  gone: {webhook: {url: "http://%[2]s/gone?token=%[3]s-token", headers: {Authorization: "Bearer %[3]s-header"}}}
  moved: {webhook: {url: "http://robert:%[3]s-password@%[2]s/moved"}}
  nobody: {webhook: {url: "http://robert:%[3]s-password@127.0.0.1:1/?%[3]s"}}
  nowhere: {webhook: {url: "http://robert:%[3]s-password@nosuchhost.invalid/?token=%[3]s"}}
  tls: {webhook: {url: "https://robert:%[3]s-password@%[2]s/"}}
  child: {subprocess: {command: [sh, -c, "cat >&2; exit 65"], env: {SECRET: %[3]s}}}
  function: {sqlfunc: {function: public.refuse}}
  nofunction: {sqlfunc: {function: public.nosuchfunction}}
`, database, server, mark)
}

// wantNoMark looks for secrets, and where no payload must be for it too.
func wantNoMark(t *testing.T, where, text string) {
	t.Helper()
	for _, found := range []string{mark, payloadMark} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, found) {
				t.Errorf("%s tells %s: %.600s", where, found, line)
			}
		}
	}
}

// The real program, with secrets wherever there can be one, through many failures at trace level: none of its outputs tells
// one, nor the payload of a job.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://robert:"+mark+"@127.0.0.1/?"+mark, http.StatusFound)
			return
		case "/gone":
			w.WriteHeader(http.StatusGone)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
		asked, _ := httputil.DumpRequest(r, true)
		_, _ = w.Write(asked)
	}))
	t.Cleanup(application.Close)
	databaseURL := pgtest.Migrated(t)
	pool := pgtest.Pool(t, databaseURL)
	name, loginURL := newLogin(t, databaseURL)
	if _, err := pool.Exec(t.Context(), fmt.Sprintf(`ALTER ROLE %s PASSWORD '%s-real'; GRANT pgbell_worker TO %[1]s;
		CREATE FUNCTION refuse(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused: %%', payload; END $$`, name, mark)); err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(loginURL)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword(name, mark+"-real")
	text := secretConfig(parsed.String(), application.Listener.Addr().String())
	s := runSidecar(t, "", text)
	s.awaitReady()
	kinds := []string{"echo", "gone", "moved", "nobody", "nowhere", "tls", "child", "function", "nofunction"}
	for _, kind := range kinds {
		insert(t, pool, kind, `{"x": "`+payloadMark+`"}`)
	}
	eventually(t, "a try of each job", func() bool {
		var tried int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM jobs WHERE error IS NOT NULL").Scan(&tried); err != nil {
			t.Fatal(err)
		}
		return tried == len(kinds)
	})
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/nosuchpage"} {
		_, body := s.get(path)
		wantNoMark(t, path, body)
	}
	var tables string
	if err := pool.QueryRow(t.Context(), `SELECT concat_ws(E'\n',
		(SELECT string_agg(to_jsonb(j)::text, E'\n') FROM jobs j), (SELECT string_agg(e::text, E'\n') FROM job_errors e), (SELECT string_agg(w::text, E'\n') FROM job_workers w),
		(SELECT string_agg(t::text, E'\n') FROM job_types t), (SELECT string_agg(s::text, E'\n') FROM job_settings s),
		(SELECT string_agg(concat(application_name, query), E'\n') FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()))`).Scan(&tables); err != nil {
		t.Fatal(err)
	}
	// What a handler says of the payload is for those who may read the payload.
	wantNoMark(t, "a table", strings.ReplaceAll(tables, payloadMark, ""))
	wantNoMark(t, "the log", s.log())
	wantNoSecretPrinted(t, text)
}

// wantNoSecretPrinted looks at what commands print of a configuration, and of a broken one.
func wantNoSecretPrinted(t *testing.T, text string) {
	t.Helper()
	for change, to := range map[string]string{"": "", "@127": "@[127", "whsec_": "whsec", "http://": "://", "Bearer": "\\u0000", "token=": "%zz", "-real@": "-real@nosuchhost.invalid:x", "postgres://": "/"} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "pgbell.yaml"), []byte(strings.ReplaceAll(text, change, to)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config", "print"}, {"config", "print", "--json"}, {"config", "check"}, {"jobs", "ls"}} {
			command := exec.Command(binary, args...)
			command.Dir = folder
			output, _ := command.CombinedOutput() // it may be an error
			if len(output) == 0 {
				t.Errorf("%q prints nothing", args)
			}
			wantNoMark(t, fmt.Sprintf("%q with %q for %q", args, to, change), strings.ReplaceAll(string(output), payloadMark, ""))
		}
	}
}

// While the database can't be reached, for whatever reason, the log doesn't tell the password.
func TestPasswordStaysSecret(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Migrated(t)
	name, loginURL := newLogin(t, databaseURL)
	parsed, err := url.Parse(loginURL)
	if err != nil {
		t.Fatal(err)
	}
	user := url.UserPassword(name, mark)
	for what, change := range map[string]func(*url.URL){
		"wrong password": func(*url.URL) {},
		"unknown host":   func(u *url.URL) { u.Host = "nosuchhost.invalid" },
		"refused":        func(u *url.URL) { u.Host = "127.0.0.1:1" },
		"no TLS":         func(u *url.URL) { u.RawQuery = "sslmode=verify-full" },
		"no database":    func(u *url.URL) { u.Path = "/nosuchdatabase" },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			u := *parsed
			u.User = user
			change(&u)
			s := runSidecar(t, u.String(), "log: {level: trace}\nhandlers: {a: {webhook: {url: 'http://127.0.0.1:1/'}}}\n", "HTTP_PROXY=http://u:"+mark+"@127.0.0.1:1")
			eventually(t, "a word about the failure", func() bool { return strings.Contains(s.log(), `"error"`) })
			for _, path := range []string{"/readyz", "/metrics"} {
				_, body := s.get(path)
				wantNoMark(t, path, body)
			}
			wantNoMark(t, "the log", s.log())
		})
	}
}
