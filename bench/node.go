package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// peersFolder holds the scripts of the peers that run on Node, and their packages.
const peersFolder = "peers"

var installPeers sync.Mutex

// nodePeers installs the packages on first use, as the lock file has them. Where that can't be done it is errMissing.
func nodePeers(ctx context.Context) error {
	installPeers.Lock()
	defer installPeers.Unlock()
	if _, err := os.Stat(filepath.Join(peersFolder, "node_modules", "pg-boss")); err == nil {
		_, err := nodeBinary()
		return err
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return fmt.Errorf("%w: npm is not installed", errMissing)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	install.Dir = peersFolder
	if output, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: npm ci in bench/peers: %w: %.300s", errMissing, err, strings.TrimSpace(string(output)))
	}
	_, err := nodeBinary()
	return err
}

// nodeBinary is the pinned Node, where its package is for this system, or else the one on PATH.
func nodeBinary() (string, error) {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	pinned, err := filepath.Abs(filepath.Join(peersFolder, "node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node"))
	if err == nil {
		if _, err := os.Stat(pinned); err == nil {
			return pinned, nil
		}
	}
	found, err := exec.LookPath("node")
	if err != nil {
		return "", fmt.Errorf("%w: no Node for this system", errMissing)
	}
	return found, nil
}

// nodeProcess is a peer's script, which answers commands by lines (see peers/protocol.mjs).
type nodeProcess struct {
	process  *exec.Cmd
	stdin    io.WriteCloser
	answers  chan string
	recorder *recorder
	stderr   *said
	read     sync.WaitGroup
}

func startNode(ctx context.Context, script string, options map[string]any, recorder *recorder) (*nodeProcess, error) {
	binary, err := nodeBinary()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("encode options: %w", err)
	}
	n := &nodeProcess{answers: make(chan string, 1), recorder: recorder, stderr: &said{}}
	n.process = exec.CommandContext(ctx, binary, script, string(text))
	n.process.Dir, n.process.Stderr = peersFolder, n.stderr
	n.process.WaitDelay = 5 * time.Second
	if n.stdin, err = n.process.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	stdout, err := n.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	if err := n.process.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	n.read.Go(func() {
		defer close(n.answers)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			n.take(lines.Text())
		}
	})
	return n, nil
}

// take a line: a report goes to the recorder, an answer to who asked.
func (n *nodeProcess) take(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "runs", "twice":
		if count, err := strconv.ParseInt(rest, 10, 64); err == nil && kind == "runs" {
			n.recorder.runs.Store(count)
		} else if err == nil {
			n.recorder.twice.Store(count)
		}
	case "at":
		fields := strings.Fields(rest)
		for i := 0; i+1 < len(fields); i += 2 {
			job, err := strconv.Atoi(fields[i])
			at, err2 := strconv.ParseInt(fields[i+1], 10, 64)
			if err == nil && err2 == nil && job < len(n.recorder.starts) {
				n.recorder.starts[job].Store(at)
			}
		}
	default:
		n.answers <- line
	}
}

// ask sends a command and returns the JSON of its answer.
func (n *nodeProcess) ask(ctx context.Context, command string) (string, error) {
	if _, err := fmt.Fprintln(n.stdin, command); err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, n.stderr)
	}
	select {
	case answer, ok := <-n.answers:
		kind, rest, _ := strings.Cut(answer, " ")
		if !ok || kind != "ok" {
			return "", fmt.Errorf("%s: %s %s", command, rest, n.stderr)
		}
		return rest, nil
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}

func (n *nodeProcess) work(ctx context.Context) error {
	_, err := n.ask(ctx, "work")
	return err
}

func (n *nodeProcess) collect(ctx context.Context) error {
	_, err := n.ask(ctx, "collect")
	return err
}

// stop ends the process. One that doesn't end within a quarter of a minute is killed.
func (n *nodeProcess) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	_, err := n.ask(ctx, "stop")
	_ = n.stdin.Close() // it may have ended
	if err != nil {
		_ = n.process.Process.Kill()
	}
	n.read.Wait()
	return errors.Join(err, n.process.Wait())
}

// said is the first part of what a process said.
type said struct {
	mutex sync.Mutex
	text  []byte
}

func (t *said) Write(p []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.text = append(t.text, p[:min(len(p), 2000-len(t.text))]...)
	return len(p), nil
}

func (t *said) String() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return strings.TrimSpace(string(t.text))
}
