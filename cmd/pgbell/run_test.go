package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/internal/postgres"
)

// sidecar is a running pgbell run.
type sidecar struct {
	t       *testing.T
	process *exec.Cmd
	exited  chan struct{}

	mu    sync.Mutex
	lines []map[string]any
	raw   []string
}

// runSidecar starts the real binary with a configuration and further variables.
func runSidecar(t *testing.T, databaseURL, text string, environ ...string) *sidecar {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "pgbell.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sidecar{t: t, process: exec.Command(binary, "run"), exited: make(chan struct{})}
	s.process.Dir = folder
	s.process.Env = []string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + databaseURL, "PGBELL_HTTP_ADDR=127.0.0.1:0"}
	if work := pgtest.WorkURL(databaseURL); work != databaseURL {
		s.process.Env = append(s.process.Env, "DATABASE_URL="+work, "PGBELL_LISTEN_URL="+databaseURL)
	}
	s.process.Env = append(s.process.Env, environ...)
	stderr, err := s.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			var line map[string]any
			_ = json.Unmarshal(scanner.Bytes(), &line) // what is no JSON is in raw
			s.mu.Lock()
			s.lines, s.raw = append(s.lines, line), append(s.raw, scanner.Text())
			s.mu.Unlock()
		}
		_ = s.process.Wait() // the test looks at ProcessState
	}()
	t.Cleanup(func() {
		_ = s.process.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("log of pgbell:\n%s", s.log())
		}
	})
	return s
}

func (s *sidecar) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.raw, "\n")
}

// logged returns the log lines with a message.
func (s *sidecar) logged(message string) []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []map[string]any
	for _, line := range s.lines {
		if line["message"] == message {
			found = append(found, line)
		}
	}
	return found
}

// awaitLog waits for a message and returns its line.
func (s *sidecar) awaitLog(message string) map[string]any {
	s.t.Helper()
	var found []map[string]any
	eventually(s.t, fmt.Sprintf("the message %q", message), func() bool {
		found = s.logged(message)
		return len(found) > 0
	})
	return found[0]
}

func (s *sidecar) addr() string {
	s.t.Helper()
	addr, _ := s.awaitLog("serving /healthz, /readyz and /metrics")["addr"].(string)
	return addr
}

// get returns the status and the body, 0 where there was none.
func (s *sidecar) get(path string) (int, string) {
	s.t.Helper()
	response, err := http.Get("http://" + s.addr() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

func (s *sidecar) awaitReady() {
	s.t.Helper()
	eventually(s.t, "readiness", func() bool {
		code, _ := s.get("/readyz")
		return code == http.StatusOK
	})
}

func (s *sidecar) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// awaitExit returns the exit code.
func (s *sidecar) awaitExit() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.t.Fatal("pgbell runs on")
	}
	return s.process.ProcessState.ExitCode()
}

// eventually polls a condition for 30 s.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func insert(t *testing.T, pool *pgxpool.Pool, kind, payload string) (id string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), "INSERT INTO jobs (type, payload) VALUES ($1, $2) RETURNING id::text", kind, payload).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

func awaitStatus(t *testing.T, pool *pgxpool.Pool, id, want string) {
	t.Helper()
	got := ""
	eventually(t, "job "+id+" to be "+want, func() bool {
		if err := pool.QueryRow(t.Context(), "SELECT status::text FROM jobs WHERE id = $1", id).Scan(&got); err != nil {
			t.Fatal(err)
		}
		return got == want
	})
}

func TestRunRunsJobsByEachWay(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	if _, err := pool.Exec(t.Context(), `CREATE FUNCTION work(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT payload || '{"by": "sql"}' $$`); err != nil {
		t.Fatal(err)
	}
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"by": %q}`, r.Header.Get("X-Job-Type"))
	}))
	t.Cleanup(application.Close)
	s := runSidecar(t, url, `
handlers:
  post: {webhook: {url: "`+application.URL+`"}}
  child: {subprocess: {command: [cat]}}
  function: {sqlfunc: {function: public.work}}
`)
	s.awaitReady()
	for kind, want := range map[string]string{"post": `{"by": "post"}`, "child": `{"x": 1}`, "function": `{"x": 1, "by": "sql"}`} {
		id := insert(t, pool, kind, `{"x": 1}`)
		awaitStatus(t, pool, id, "completed")
		var same bool
		if err := pool.QueryRow(t.Context(), "SELECT result = $2::jsonb FROM jobs WHERE id = $1", id, want).Scan(&same); err != nil || !same {
			t.Errorf("%s: the result is not %s (%v)", kind, want, err)
		}
	}
	insert(t, pool, "stranger", "{}")
	if code, body := s.get("/healthz"); code != http.StatusOK || !strings.Contains(body, `"ok"`) {
		t.Errorf("/healthz: %d %s", code, body)
	}
	code, body := s.get("/metrics")
	for _, want := range []string{`pgbell_jobs_pending{type="stranger"} 1`, "pgbell_backlog_up 1", `pgbell_pool_connections_max{pool="work"} 8`,
		"process_resident_memory_bytes", "go_goroutines", "pgbell_build_info", "pgbell_listener_", `pgbell_jobs_claimed_total{type="child"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics (%d) lacks %s", code, want)
		}
	}
	s.signal(syscall.SIGTERM)
	if code := s.awaitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestRunEndsItsJobsAtSIGTERM(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	folder := t.TempDir()
	s := runSidecar(t, url, "handlers: {slow: {subprocess: {command: [sh, -c, 'touch \"$0/began\"; while ! [ -e \"$0/end\" ]; do sleep 0.02; done', '"+folder+"']}}}\n")
	s.awaitReady()
	running := insert(t, pool, "slow", "{}")
	eventually(t, "the job's start", func() bool { return exists(filepath.Join(folder, "began")) })
	s.signal(syscall.SIGTERM)
	eventually(t, "the stop of claims", func() bool {
		code, body := s.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "stopping")
	})
	// The job goes on, and what comes after the signal is not claimed.
	waiting := insert(t, pool, "slow", "{}")
	if err := os.WriteFile(filepath.Join(folder, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := s.awaitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	awaitStatus(t, pool, running, "completed")
	awaitStatus(t, pool, waiting, "pending")
}

// Readiness tells whether inserts ring, and whom their end is waited for.
func TestReadinessTellsOfTheBell(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	open, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := open.Exec(t.Context(), "SET LOCAL application_name = 'nightly-import'; INSERT INTO jobs (type) VALUES ('t')"); err != nil {
		t.Fatal(err)
	}
	s := runSidecar(t, url, "handlers: {t: {subprocess: {command: ['true']}}}\n")
	s.awaitReady()
	told := func(what, holder string) {
		t.Helper()
		eventually(t, what, func() bool {
			_, body := s.get("/readyz")
			var answer struct {
				Bell struct {
					Asleep   bool   `json:"asleep"`
					HeldUpBy string `json:"held_up_by"`
				} `json:"bell"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			return answer.Bell.Asleep && strings.Contains(answer.Bell.HeldUpBy, holder) && (holder != "" || answer.Bell.HeldUpBy == "")
		})
	}
	told("the open transaction is named", "nightly-import")
	if err := open.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	told("it is forgotten", "")
}

func TestRunExitsAtOnceAtTheSecondSignal(t *testing.T) {
	t.Parallel()
	for signal, want := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Migrated(t)
			pool := pgtest.Pool(t, url)
			folder := t.TempDir()
			s := runSidecar(t, url, "handlers: {stubborn: {subprocess: {command: [sh, -c, 'trap \"\" TERM INT; touch \"$0/began\"; while :; do sleep 1; done', '"+folder+"']}}}\n")
			s.awaitReady()
			insert(t, pool, "stubborn", "{}")
			eventually(t, "the job's start", func() bool { return exists(filepath.Join(folder, "began")) })
			s.signal(signal)
			s.awaitLog("pgbell is stopping: a second signal ends it at once")
			s.signal(signal)
			if code := s.awaitExit(); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
		})
	}
}

func TestRunWaitsForTheDatabase(t *testing.T) {
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
	s := runSidecar(t, server.URL("postgres"), "handlers: {'*': {subprocess: {command: [cat]}}}\n")
	waiting := s.awaitLog("waiting for the database")
	if waiting["reason"] != "connection refused" || waiting["hint"] == "" {
		t.Errorf("it says %v", waiting)
	}
	if code, _ := s.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if err := server.Launch(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	// It is there now, and lacks the schema: that needs a person.
	if code := s.awaitExit(); code != exitSchema {
		t.Errorf("exit code %d", code)
	}
	if n := len(s.logged("waiting for the database")); n > 3 {
		t.Errorf("one wait was told %d times", n)
	}
	if !strings.Contains(s.log(), `hint: run "pgbell migrate up"`) {
		t.Errorf("the log doesn't name the command:\n%s", s.log())
	}
}

func TestRunWaitsWhileThePasswordIsWrong(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	name, login := newLogin(t, url)
	if err := runSQL(url, "GRANT pgbell_worker TO "+name); err != nil {
		t.Fatal(err)
	}
	s := runSidecar(t, strings.Replace(login, "hush", "newsecret", 1), "handlers: {'*': {subprocess: {command: [cat]}}}\n")
	want := "28P01"
	if pgtest.WorkURL(url) != url {
		want = "08P01"
	}
	waiting := s.awaitLog("waiting for the database")
	if hint, _ := waiting["hint"].(string); waiting["reason"] != want || !strings.Contains(hint, "the password") {
		t.Errorf("it says %v", waiting)
	}
	if err := runSQL(url, "ALTER ROLE "+name+" PASSWORD 'newsecret'"); err != nil {
		t.Fatal(err)
	}
	s.awaitReady()
	s.awaitLog("the database answers")
	if strings.Contains(s.log(), "newsecret") {
		t.Error("the log shows the password")
	}
}

func TestRunMigrates(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	folder := t.TempDir()
	process := exec.Command(binary, "run", "--migrate", "--database-url", url, "--config", filepath.Join(folder, "c.yaml"))
	if err := os.WriteFile(filepath.Join(folder, "c.yaml"), []byte("http: {addr: \"off\"}\nhandlers: {'*': {subprocess: {command: [cat]}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	process.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	pool := pgtest.Pool(t, url)
	eventually(t, "the schema", func() bool {
		var there bool
		return pool.QueryRow(t.Context(), "SELECT to_regclass('public.job_workers') IS NOT NULL").Scan(&there) == nil && there
	})
	awaitStatus(t, pool, insert(t, pool, "x", "{}"), "completed")
	if err := process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

func TestBusyPorts(t *testing.T) {
	t.Parallel()
	const handlers = "handlers: {'*': {subprocess: {command: [cat]}}}\n"
	url := pgtest.Migrated(t)
	// Whoever holds the default port, it is busy.
	if held, err := net.Listen("tcp", "127.0.0.1:9797"); err == nil {
		t.Cleanup(func() { _ = held.Close() })
	}
	s := runSidecar(t, url, handlers, "PGBELL_HTTP_ADDR=")
	line := s.awaitLog("the default port is in use: another one is taken; set http.addr to choose")
	if line["busy"] != "127.0.0.1:9797" || line["addr"] != s.addr() {
		t.Errorf("it says %v, and serves at %s", line, s.addr())
	}
	s.awaitReady()

	configured := runSidecar(t, url, handlers, "PGBELL_HTTP_ADDR="+s.addr())
	if code := configured.awaitExit(); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(configured.log(), "error: listen on http.addr "+s.addr()+": address already in use") {
		t.Errorf("the log is\n%s", configured.log())
	}
}

// What a job says can't play with the terminal of who watches the log.
func TestConsoleLogEscapes(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	s := runSidecar(t, url, "log: {level: trace, format: console}\nhttp: {addr: 'off'}\nhandlers: {'*': {subprocess: {command: [sh, -c, 'printf \"\\033[31mred\\007\" >&2; exit 65']}}}\n", "PGBELL_HTTP_ADDR=")
	id := insert(t, pool, "evil\x1b[31m\u202etype", "{}")
	awaitStatus(t, pool, id, "failed")
	s.signal(syscall.SIGTERM)
	s.awaitExit()
	if log := s.log(); strings.ContainsAny(log, "\x1b\x07\u202e") || !strings.Contains(log, "pgbell has stopped") {
		t.Errorf("the log is %q", log)
	}
}

// A transaction pooler in front of the work must not see prepared statements or foreign startup parameters.
// A bell in another database would be heard, and ring for nobody.
func TestListenURLIsOfTheSameDatabase(t *testing.T) {
	t.Parallel()
	one, other := pgtest.Migrated(t), pgtest.Migrated(t)
	for _, test := range []struct {
		name, url, listen string
		same              bool
	}{
		{"through a pooler", throughPooler(t, one), one, true},
		{"another database", one, other, false},
	} {
		settings := loadText(t, fmt.Sprintf("database: {url: %q, listen_url: %q}\n", test.url, test.listen))
		err := (&app{}).checkDatabase(t.Context(), settings)
		if same := err == nil; same != test.same || !same && !strings.Contains(err.Error(), "another database") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestPooledConnections(t *testing.T) {
	t.Parallel()
	a := &app{}
	for _, test := range []struct {
		url, listen string
		want        string
	}{
		{"postgres://u@h/d", "", "cache statement"},
		{"postgres://u@h/d", "postgres://u@h/d", "cache statement"},
		{"postgres://u@pooler/d", "postgres://u@h/d", "cache describe"},
		{"postgres://u@pooler/d?default_query_exec_mode=simple_protocol", "postgres://u@h/d", "simple protocol"},
	} {
		settings := loadText(t, fmt.Sprintf("database: {url: %q, listen_url: %q}\n", test.url, test.listen))
		conn, err := a.connConfig(settings, test.url, "pgbell worker")
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.DefaultQueryExecMode.String(); got != test.want {
			t.Errorf("%s with %s: mode %s, want %s", test.url, test.listen, got, test.want)
		}
		names := []string{}
		for name := range conn.RuntimeParams {
			names = append(names, name)
		}
		if !slices.Equal(names, []string{"application_name"}) || conn.RuntimeParams["application_name"] != "pgbell worker" {
			t.Errorf("startup parameters are %v", conn.RuntimeParams)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
