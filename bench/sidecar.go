package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sidecar is a running pgbell program.
type sidecar struct {
	process *exec.Cmd
	folder  string
	addr    string
	ended   chan struct{}
}

// startSidecar runs the program with one handler for the jobs, and waits until it is ready.
func startSidecar(ctx context.Context, r round, handler string) (*sidecar, error) {
	binary, err := filepath.Abs(r.set.binary)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", r.set.binary, err)
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "pgbell-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	child := &sidecar{folder: folder, addr: addr, ended: make(chan struct{})}
	if err := child.start(ctx, binary, r.url, handler); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if err := child.waitReady(ctx); err != nil {
		return nil, errors.Join(err, child.stop())
	}
	return child, nil
}

func (s *sidecar) start(ctx context.Context, binary, url, handler string) error {
	path := filepath.Join(s.folder, "pgbell.yaml")
	config := fmt.Sprintf("http: {addr: '%s'}\nhandlers:\n  bench:\n    %s\n", s.addr, handler)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	log, err := os.Create(filepath.Join(s.folder, "log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	s.process = exec.CommandContext(ctx, binary, "run", "--config", path)
	s.process.Env = []string{"DATABASE_URL=" + url, "PATH=" + os.Getenv("PATH")}
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start %s (make build makes it): %w", binary, err)
	}
	go func() {
		_ = s.process.Wait() // how it ended is in its log
		close(s.ended)
	}()
	return nil
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

// memory reads a figure of a process in megabytes (10^6 bytes), by its name in /proc/PID/status.
func memory(pid int, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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

// processorTime that a process has used, in user and system mode.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of the process (this needs Linux): %w", err)
	}
	// The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it, in 1/100 s.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("read CPU time of the process: its stat is too short")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
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
