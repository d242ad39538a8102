package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// memoryScenario: what the program itself takes, as a process of its own.
func memoryScenario() scenario {
	const kilobyte = 1000
	payload := `{"text": "` + strings.Repeat("x", kilobyte-len(`{"text": ""}`)) + `"}`
	return scenario{
		name: "memory",
		about: "Resident memory of `pgbell run` as its own process (VmRSS, VmHWM of /proc): idle 5 s after it became ready, and the most " +
			"while it drains the jobs, by webhooks to a server on this machine that answers at once, or by a SQL function.",
		payload: payload,
		figures: []figure{
			{name: "idle", unit: "MB idle", digits: 1},
			{name: "peak", unit: "MB at most while draining", digits: 1},
			{name: "jobs_per_second", unit: "jobs/s"},
		},
		systems: []system{
			{name: "pgbell run, webhook", run: func(ctx context.Context, r round) (map[string]float64, error) {
				return memoryByWebhook(ctx, r, payload)
			}},
			{name: "pgbell run, sqlfunc", run: func(ctx context.Context, r round) (map[string]float64, error) {
				return memoryBySQL(ctx, r, payload)
			}},
		},
	}
}

func memoryByWebhook(ctx context.Context, r round, payload string) (map[string]float64, error) {
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		w.WriteHeader(http.StatusNoContent)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(socket) }()
	handler := fmt.Sprintf("webhook: {url: 'http://%s/jobs', secret: whsec_%s}", socket.Addr(), "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	figures, err := memory(ctx, r, payload, handler)
	closeErr := server.Close()
	if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
		closeErr = errors.Join(closeErr, serveErr)
	}
	return figures, errors.Join(err, closeErr)
}

func memoryBySQL(ctx context.Context, r round, payload string) (map[string]float64, error) {
	conn, err := pgx.Connect(ctx, r.databaseURL)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "CREATE FUNCTION bench_noop(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
	if err != nil {
		return nil, fmt.Errorf("make function: %w", err)
	}
	return memory(ctx, r, payload, "sqlfunc: {function: public.bench_noop}")
}

// memory measures a sidecar with one handler: idle, and then while it drains jobs inserted in one statement.
func memory(ctx context.Context, r round, payload, handler string) (_ map[string]float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	child, err := startSidecar(ctx, r, handler)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	if err := child.waitReady(ctx); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(5 * time.Second):
	}
	idle, err := child.memory("VmRSS")
	if err != nil {
		return nil, err
	}
	pool, err := openPool(ctx, r.databaseURL, 1)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	start := time.Now()
	if _, err := pool.Exec(ctx, fillSQL, r.jobs, payload); err != nil {
		return nil, fmt.Errorf("insert jobs: %w", err)
	}
	if err := waitDrained(ctx, pool); err != nil {
		return nil, fmt.Errorf("%w: the sidecar said: %s", err, child.said())
	}
	figures, err := drained(ctx, pool, r.jobs, time.Since(start))
	if err != nil {
		return nil, err
	}
	peak, err := child.memory("VmHWM")
	if err != nil {
		return nil, err
	}
	figures["idle"], figures["peak"] = idle, peak
	return figures, nil
}

// sidecar is a running pgbell.
type sidecar struct {
	process *exec.Cmd
	folder  string
	addr    string
	ended   chan struct{}
}

func startSidecar(ctx context.Context, r round, handler string) (*sidecar, error) {
	binary, err := filepath.Abs(r.binary)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", r.binary, err)
	}
	folder, err := os.MkdirTemp("", "pgbell-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("http: {addr: '%s'}\nhandlers:\n  bench:\n    %s\n", addr, handler)
	if err := os.WriteFile(filepath.Join(folder, "pgbell.yaml"), []byte(config), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write configuration: %w", err), os.RemoveAll(folder))
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make log: %w", err), os.RemoveAll(folder))
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	child := &sidecar{folder: folder, addr: addr, ended: make(chan struct{})}
	child.process = exec.CommandContext(ctx, binary, "run", "--config", filepath.Join(folder, "pgbell.yaml"))
	child.process.Env = []string{"DATABASE_URL=" + r.databaseURL, "PATH=" + os.Getenv("PATH")}
	child.process.Stdout, child.process.Stderr = log, log
	if err := child.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s (make build makes it): %w", binary, err), os.RemoveAll(folder))
	}
	go func() {
		_ = child.process.Wait() // how it ended is in its log
		close(child.ended)
	}()
	return child, nil
}

func (s *sidecar) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask whether pgbell is ready: %w", err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.ended:
			return fmt.Errorf("pgbell ended at once: %s", s.said())
		case <-ctx.Done():
			return fmt.Errorf("pgbell wasn't ready within 30 s: %s", s.said())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// memory reads a figure of the process in megabytes (10^6 bytes), by its name in /proc/PID/status.
func (s *sidecar) memory(name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of the process (this needs Linux): %w", err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 3 && fields[0] == name+":" && fields[2] == "kB" {
			kibibytes, err := strconv.ParseFloat(fields[1], 64)
			return kibibytes * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("read memory of the process: no %s in its status", name)
}

// said is the end of the sidecar's log.
func (s *sidecar) said() string {
	text, err := os.ReadFile(filepath.Join(s.folder, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-2000):]))
}

func (s *sidecar) stop() error {
	defer func() { _ = os.RemoveAll(s.folder) }()
	select {
	case <-s.ended:
		return fmt.Errorf("pgbell ended by itself: %s", s.said())
	default:
	}
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop pgbell: %w", err)
	}
	select {
	case <-s.ended:
	case <-time.After(40 * time.Second):
		_ = s.process.Process.Kill() // fails only if it has ended
		<-s.ended
		return errors.New("pgbell didn't stop within 40 s of SIGTERM")
	}
	if code := s.process.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("pgbell ended with exit code %d: %s", code, s.said())
	}
	return nil
}

func freeAddr(ctx context.Context) (string, error) {
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return socket.Addr().String(), socket.Close()
}
