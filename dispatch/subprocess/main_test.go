package subprocess_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/internal/pgtest"
)

// The test binary is its own child: modeEnv says as what.
const (
	modeEnv = "SUBPROCESS_TEST_MODE"
	dirEnv  = "SUBPROCESS_TEST_DIR" // where processes that live on leave a file named after their pid
)

func TestMain(m *testing.M) {
	subprocess.GuardMain()
	if name := os.Getenv(modeEnv); name != "" {
		mode, known := modes()[name]
		if !known {
			fmt.Fprintln(os.Stderr, "no such mode:", name)
			os.Exit(99)
		}
		mode(os.Args[1:])
		os.Exit(0)
	}
	// Children built with the race detector would wait for a second before each exit.
	check(0, os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")))
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func modes() map[string]func(args []string) {
	all := map[string]func([]string){
		"echo": func([]string) { check(io.Copy(os.Stdout, os.Stdin)) },
		"env": func([]string) {
			env := map[string]string{}
			for _, entry := range os.Environ() {
				name, value, _ := strings.Cut(entry, "=")
				if _, twice := env[name]; twice {
					check(0, fmt.Errorf("%s is set twice", name))
				}
				env[name] = value
			}
			check(0, json.NewEncoder(os.Stdout).Encode(env))
		},
		// say STDOUT STDERR CODE
		"say": func(args []string) {
			check(os.Stdout.WriteString(args[0]))
			check(os.Stderr.WriteString(args[1]))
			code, err := strconv.Atoi(args[2])
			check(code, err)
			os.Exit(code)
		},
		// signal NUMBER
		"signal": func(args []string) {
			number, err := strconv.Atoi(args[0])
			check(number, err)
			signal.Reset()
			check(0, syscall.Kill(os.Getpid(), syscall.Signal(number)))
			forever()
		},
		"pid":  func([]string) { check(fmt.Print(os.Getpid())) },
		"leaf": func([]string) { settleDown(); forever() },
		"tree": func([]string) { spawn("leaf"); settleDown(); forever() },
		"stubborn": func([]string) {
			signal.Ignore(syscall.SIGTERM) // which its child inherits
			spawn("leaf")
			settleDown()
			forever()
		},
		"polite": func([]string) {
			told := make(chan os.Signal, 1)
			signal.Notify(told, syscall.SIGTERM)
			settleDown()
			<-told
			check(os.Stdout.WriteString(`{"told":true}`))
		},
		"lingering": func([]string) { spawn("leaf"); await("leaf"); check(os.Stdout.WriteString(`{"left":1}`)) },
		"daemon": func([]string) {
			spawnIn("leaf", &syscall.SysProcAttr{Setsid: true})
			await("leaf")
			check(os.Stdout.WriteString(`{"left":1}`))
		},
		// flood MEGABYTES, 0 for no end
		"flood": func(args []string) {
			n, err := strconv.Atoi(args[0])
			check(n, err)
			block := []byte(strings.Repeat("0123456789abcdef", 1<<16))
			for i := 0; n == 0 || i < n; i++ {
				check(os.Stdout.Write(block))
				check(os.Stderr.Write(block))
			}
		},
		"deaf": func([]string) { check(os.Stdout.WriteString(`"unread"`)) },
		"closed": func([]string) {
			check(0, os.Stdout.Close())
			check(0, os.Stderr.Close())
			check(io.Copy(io.Discard, os.Stdin))
		},
		"sidecar": func(args []string) {
			guard, err := subprocess.NewGuard(subprocess.GuardConfig{Logger: zerolog.New(os.Stdout)})
			check(0, err)
			go func() { check(0, guard.Run(context.Background())) }()
			handler, err := subprocess.New(self("stubborn", subprocess.Config{Guard: guard, Env: []string{dirEnv + "=" + os.Getenv(dirEnv)}}))
			check(0, err)
			result := handler.Run(context.Background(), dispatch.Job{ID: "1", Type: "tree", Attempt: 1, MaxAttempts: 1})
			fmt.Fprintln(os.Stderr, "the child ended:", result)
			os.Exit(1)
		},
	}
	for name, mode := range systemModes() {
		all[name] = mode
	}
	return all
}

// check ends a child that can't do what it is for.
func check[T any](_ T, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "broken test child:", err)
		os.Exit(98)
	}
}

// settleDown says that this process is there and means to stay.
func settleDown() {
	name := filepath.Join(os.Getenv(dirEnv), strconv.Itoa(os.Getpid()))
	check(0, os.WriteFile(name+".new", []byte(os.Getenv(modeEnv)), 0o600))
	check(0, os.Rename(name+".new", name))
}

// home returns a directory for processes to settle down in. None outlives the test, even if it fails.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		for pid := range settled(dir) {
			if alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	return dir
}

func forever() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, syscall.SIGUSR1)
	<-never
}

func spawn(mode string) { spawnIn(mode, nil) }

func spawnIn(mode string, attr *syscall.SysProcAttr) {
	path, err := os.Executable()
	check(path, err)
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, modeEnv+"=") {
			env = append(env, entry)
		}
	}
	check(os.StartProcess(path, os.Args, &os.ProcAttr{
		Env: append(env, modeEnv+"="+mode), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: attr,
	}))
}

// await returns when a process of that mode has settled down.
func await(mode string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range settled(os.Getenv(dirEnv)) {
			if m == mode {
				return
			}
		}
		<-tick.C
	}
}

// settled returns the modes of the processes that have settled down in dir, by pid.
func settled(dir string) map[int]string {
	found := map[int]string{}
	files, err := os.ReadDir(dir)
	check(files, err)
	for _, f := range files {
		if pid, err := strconv.Atoi(f.Name()); err == nil {
			mode, err := os.ReadFile(filepath.Join(dir, f.Name()))
			check(mode, err)
			found[pid] = string(mode)
		}
	}
	return found
}

// alive says no of a zombie: who reaps orphans is init's business.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		_, noProc := os.Stat("/proc/self")
		return noProc != nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// self completes config with a command that is this binary in a mode.
func self(mode string, config subprocess.Config, args ...string) subprocess.Config {
	path, err := os.Executable()
	check(path, err)
	config.Command = append([]string{path}, args...)
	config.Env = append(config.Env, modeEnv+"="+mode)
	return config
}

func eventually(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
