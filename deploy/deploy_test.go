// Package deploy_test runs what the files in this folder deploy.
package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

// TestExample is what compose.yaml starts, without the engine: as root each program has a root folder of its own with
// nothing in it but what the Dockerfile puts there, and the user that it names.
func TestExample(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	image := buildImage(t)
	appAddr, pgbellAddr := freeAddr(t), freeAddr(t)
	env := []string{
		"DATABASE_URL=" + database, "WEBHOOK_SECRET=" + secret, "ADDR=" + appAddr, "APP_URL=http://" + appAddr,
		"PGBELL_HTTP_ADDR=" + pgbellAddr, "PGBELL_CONFIG=" + image.path("pgbell.yaml"),
	}

	if output, err := image.command(t, env, "pgbell", "migrate", "up").CombinedOutput(); err != nil {
		t.Fatalf("migrate up: %v\n%s", err, output)
	}
	app, pgbell := image.start(t, env, "app"), image.start(t, env, "pgbell", "run")
	waitFor(t, "the app", func() bool { return image.command(t, env, "app", "-check").Run() == nil })
	waitFor(t, "pgbell", func() bool { status, _ := get(t, "http://"+pgbellAddr+"/readyz"); return status == http.StatusOK })

	if status, body := post(t, "http://"+appAddr+"/signups", `{"email": "ada@example.org"}`); status != http.StatusAccepted {
		t.Fatalf("sign up: %d %s", status, body)
	}
	waitFor(t, "the welcome", func() bool {
		_, body := get(t, "http://"+appAddr+"/signups")
		var all []struct {
			Email    string
			Welcomed bool
		}
		return json.Unmarshal(body, &all) == nil && len(all) == 1 && all[0].Email == "ada@example.org" && all[0].Welcomed
	})
	pool := pgtest.Pool(t, database)
	waitFor(t, "the job's end", func() bool {
		var outcome string
		err := pool.QueryRow(t.Context(), "SELECT format('%s %s %s', status, attempts, result) FROM jobs").Scan(&outcome)
		return err == nil && outcome == `completed 1 {"first": true}`
	})
	if status, _ := post(t, "http://"+appAddr+"/signups", `{"email": "ada@example.org"}`); status != http.StatusConflict {
		t.Errorf("second sign-up: %d", status)
	}
	if status, _ := post(t, "http://"+appAddr+"/jobs", `{"type": "welcome_email", "data": {"email": "x@y"}}`); status != http.StatusUnauthorized {
		t.Errorf("unsigned job: %d", status)
	}
	pgbell.stop(t)
	app.stop(t)
}

// Whoever stops pgbell must leave it its grace period.
func TestGracePeriods(t *testing.T) {
	t.Parallel()
	env := []string{"WEBHOOK_SECRET=" + secret, "APP_URL=http://127.0.0.1:8000", "DATABASE_URL=postgres://127.0.0.1/x"}
	example, err := config.Parse("pgbell.yaml", []byte(read(t, "pgbell.yaml")), env)
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Data map[string]string }
	documents := strings.Split(read(t, "kubernetes.yaml"), "\n---\n")
	if err := yaml.Unmarshal([]byte(documents[0]), &manifest); err != nil {
		t.Fatal(err)
	}
	inCluster, err := config.Parse("kubernetes.yaml", []byte(manifest.Data["pgbell.yaml"]), env)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file, pattern string
		config        *config.Config
	}{
		{"compose.yaml", `stop_grace_period: (\d+s)`, example},
		{"pgbell.service", `TimeoutStopSec=(\d+)`, example},
		{"kubernetes.yaml", `terminationGracePeriodSeconds: (\d+)`, inCluster},
	} {
		found := regexp.MustCompile(test.pattern).FindStringSubmatch(read(t, test.file))
		if found == nil {
			t.Errorf("%s: no %s", test.file, test.pattern)
			continue
		}
		period, err := time.ParseDuration(strings.TrimSuffix(found[1], "s") + "s")
		if err != nil || period < test.config.ShutdownGrace+10*time.Second {
			t.Errorf("%s leaves %s (%v), shutdown_grace is %s", test.file, found[1], err, test.config.ShutdownGrace)
		}
		if !strings.HasSuffix(test.config.HTTP.Addr, ":9797") {
			t.Errorf("%s: probes ask port 9797, http.addr is %s", test.file, test.config.HTTP.Addr)
		}
	}
}

// image is a folder like the images' root folders.
type image struct{ root string }

func buildImage(t *testing.T) image {
	t.Helper()
	image := image{root: t.TempDir()}
	if err := os.Chmod(image.root, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", image.root, "../cmd/pgbell", "./app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	if err := os.WriteFile(filepath.Join(image.root, "pgbell.yaml"), []byte(read(t, "pgbell.yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	return image
}

// path of a file, as the programs see it.
func (i image) path(name string) string {
	if os.Geteuid() == 0 {
		return "/" + name
	}
	return filepath.Join(i.root, name)
}

func (i image) command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), i.path(name), args...)
	command.Env = env
	if os.Geteuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		command.Dir = "/"
	}
	return command
}

type process struct {
	command *exec.Cmd
	output  *bytes.Buffer
	ended   chan error
}

func (i image) start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	// Not CommandContext: the test's context ends before its clean-up.
	command := exec.Command(i.path(name), args...)
	template := i.command(t, env, name)
	command.Env, command.SysProcAttr, command.Dir = template.Env, template.SysProcAttr, template.Dir
	p := &process{command: command, output: &bytes.Buffer{}, ended: make(chan error, 1)}
	command.Stdout, command.Stderr = p.output, p.output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- command.Wait() }()
	t.Cleanup(func() {
		if err := command.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
			t.Logf("%s was killed: %v", name, <-p.ended)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.output)
		}
	})
	return p
}

// stop asks a process to end in order, and waits until it has.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("%s: %v", p.command.Path, err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s doesn't end", p.command.Path)
	}
}

func post(t *testing.T, url, body string) (int, []byte) {
	t.Helper()
	return send(t, http.MethodPost, url, body)
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	return send(t, http.MethodGet, url, "")
}

// send returns status 0 where there was no answer.
func send(t *testing.T, method, url, body string) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text
}

func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}
