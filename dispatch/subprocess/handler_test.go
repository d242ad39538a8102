package subprocess_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
)

func run(t *testing.T, config subprocess.Config, job dispatch.Job) dispatch.Result {
	t.Helper()
	return runContext(t.Context(), t, config, job)
}

func runContext(ctx context.Context, t *testing.T, config subprocess.Config, job dispatch.Job) dispatch.Result {
	t.Helper()
	handler, err := subprocess.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return handler.Run(ctx, job)
}

func TestExit(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mode   string
		args   []string
		want   dispatch.Outcome
		output string
		err    string
	}{
		"done":               {"say", []string{"", "", "0"}, dispatch.OutcomeDone, "", ""},
		"done with result":   {"say", []string{` {"a": 1}` + "\n", "noise", "0"}, dispatch.OutcomeDone, `{"a": 1}`, ""},
		"done with no JSON":  {"say", []string{"sent 3 mails\n", "", "0"}, dispatch.OutcomeDone, "", ""},
		"done with two JSON": {"say", []string{"{}\n{}\n", "", "0"}, dispatch.OutcomeDone, "", ""},
		"done with no UTF-8": {"say", []string{"\"\xff\"", "", "0"}, dispatch.OutcomeDone, "", ""},
		"one":                {"say", []string{"half done", "no route\n", "1"}, dispatch.OutcomeRetry, "", "exit status 1\nstderr: no route\nstdout: half done"},
		"silent":             {"say", []string{"", "", "2"}, dispatch.OutcomeRetry, "", "exit status 2"},
		"usage":              {"say", []string{"", "", "64"}, dispatch.OutcomeRetry, "", "exit status 64"},
		"data":               {"say", []string{"", "no such user", "65"}, dispatch.OutcomeFail, "", "exit status 65, failed for good\nstderr: no such user"},
		"temporary":          {"say", []string{"", "", "75"}, dispatch.OutcomeRetry, "", "exit status 75, try again"},
		"not found":          {"say", []string{"", "", "127"}, dispatch.OutcomeRetry, "", "exit status 127"},
		"last":               {"say", []string{"", "", "255"}, dispatch.OutcomeRetry, "", "exit status 255"},
		"SIGTERM":            {"signal", []string{strconv.Itoa(int(syscall.SIGTERM))}, dispatch.OutcomeRetry, "", "killed by SIGTERM"},
		"SIGKILL":            {"signal", []string{strconv.Itoa(int(syscall.SIGKILL))}, dispatch.OutcomeRetry, "", "killed by SIGKILL, which pgbell didn't send: out of memory?"},
		"control characters": {"say", []string{"", "\x1b[31mred\x1b[0m\x07 \u202eabc\xff\r\n\r\nend\x1b", "1"}, dispatch.OutcomeRetry, "", "exit status 1\nstderr: red abc\ufffd\nend"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t, self(test.mode, subprocess.Config{}, test.args...), dispatch.Job{})
			if got.Outcome != test.want || string(got.Output) != test.output {
				t.Errorf("got %v, output %q, error %v", got.Outcome, got.Output, got.Err)
			}
			if text := errorText(got); text != test.err {
				t.Errorf("got error %q, want %q", text, test.err)
			}
		})
	}
}

func errorText(r dispatch.Result) string {
	if r.Err == nil {
		return ""
	}
	return r.Err.Error()
}

func TestPayloadComesOnStandardInput(t *testing.T) {
	t.Parallel()
	big, err := json.Marshal(strings.Repeat("x", 900_000))
	if err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string]string{"small": `{"to": "a@b.c"}`, "big": string(big), "none": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t, self("echo", subprocess.Config{}), dispatch.Job{Payload: json.RawMessage(payload)})
			if got.Outcome != dispatch.OutcomeDone || string(got.Output) != payload {
				t.Errorf("got %v, %d bytes, error %v", got.Outcome, len(got.Output), got.Err)
			}
		})
	}
}

func TestChildNeedNotUseItsPipes(t *testing.T) {
	t.Parallel()
	payload := json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	for mode, output := range map[string]string{"deaf": `"unread"`, "closed": ""} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			got := run(t, self(mode, subprocess.Config{}), dispatch.Job{Payload: payload})
			if got.Outcome != dispatch.OutcomeDone || string(got.Output) != output {
				t.Errorf("got %v, output %q, error %v", got.Outcome, got.Output, got.Err)
			}
		})
	}
}

// Not parallel: it reads what the whole process allocates.
func TestOutputWithoutBoundIsDrained(t *testing.T) {
	const megabytes = 128
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := run(t, self("flood", subprocess.Config{}, strconv.Itoa(megabytes)), dispatch.Job{})
	runtime.ReadMemStats(&after)
	if got.Outcome != dispatch.OutcomeDone || got.Output != nil {
		t.Errorf("got %v, %d bytes of output, error %v", got.Outcome, len(got.Output), got.Err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for %d MiB of output", grown, 2*megabytes)
	}
}

func TestOutputWithoutEndIsStoppedAtTheDeadline(t *testing.T) {
	t.Parallel()
	deadline := time.Now().Add(3 * time.Second)
	got := run(t, self("flood", subprocess.Config{}, "0"), dispatch.Job{Deadline: deadline})
	if late := time.Since(deadline); late > time.Second {
		t.Errorf("returned %s after the deadline", late)
	}
	text := errorText(got)
	took, rest, _ := strings.Cut(strings.TrimPrefix(text, "timed out after "), ":")
	if limit, err := time.ParseDuration(took); got.Outcome != dispatch.OutcomeRetry || err != nil || limit > 3*time.Second ||
		!strings.HasPrefix(rest, " after SIGTERM killed by SIGTERM\nstderr: …") {
		t.Errorf("got %v: %.200s", got.Outcome, text)
	}
	if len(text) > 4000 || !utf8.ValidString(text) || !strings.Contains(text, "\nstdout: …") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func TestMaxOutput(t *testing.T) {
	t.Parallel()
	for size, output := range map[int]string{5: `"abc"`, 4: ""} {
		got := run(t, self("say", subprocess.Config{MaxOutput: size}, `"abc"`, "", "0"), dispatch.Job{})
		if got.Outcome != dispatch.OutcomeDone || string(got.Output) != output {
			t.Errorf("with %d: got %v, output %q, error %v", size, got.Outcome, got.Output, got.Err)
		}
	}
}

func TestErrorKeepsTheEnd(t *testing.T) {
	t.Parallel()
	stderr := strings.Repeat("é1234567", 3000) + "\nthe last word"
	got := run(t, self("say", subprocess.Config{}, strings.Repeat("o", 5000)+"!", stderr, "1"), dispatch.Job{})
	text := errorText(got)
	if !strings.HasPrefix(text, "exit status 1\nstderr: …") || !strings.Contains(text, "the last word\nstdout: …oooo") || !strings.HasSuffix(text, "oo!") {
		t.Errorf("got %s", text)
	}
	if len(text) < 3500 || len(text) > 4000 || !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
		t.Errorf("got %d bytes: %s", len(text), text)
	}
}

func TestStubbornTreeIsGoneAtTheDeadline(t *testing.T) {
	t.Parallel()
	dir := home(t)
	deadline := time.Now().Add(4 * time.Second)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	got := runContext(ctx, t, self("stubborn", subprocess.Config{Env: []string{dirEnv + "=" + dir}}), dispatch.Job{Deadline: deadline})
	if late := time.Since(deadline); late < 0 || late > time.Second {
		t.Errorf("returned %s after the deadline", late)
	}
	if want := "timed out after 4s: ignored SIGTERM, killed by SIGKILL"; got.Outcome != dispatch.OutcomeRetry ||
		errorText(got) != want || !errors.Is(got.Err, dispatch.ErrTimeout) {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
	expectGone(t, dir, 2)
}

// expectGone wants n processes to have settled down in dir, and soon none to be left.
func expectGone(t *testing.T, dir string, n int) {
	t.Helper()
	pids := settled(dir)
	if len(pids) != n {
		t.Errorf("%d processes had settled down, want %d: %v", len(pids), n, pids)
	}
	for pid, mode := range pids {
		eventually(t, 3*time.Second, mode+" is gone", func() bool { return !alive(pid) })
	}
}

var errWanted = errors.New("the job's cancel was asked for")

func TestCancelled(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mode string
		want string
	}{
		"obeys":     {"tree", errWanted.Error() + ": after SIGTERM killed by SIGTERM"},
		"ignores":   {"stubborn", errWanted.Error() + ": ignored SIGTERM, killed by SIGKILL"},
		"exits 0":   {"polite", errWanted.Error() + ": after SIGTERM exit status 0\nstdout: {\"told\":true}"},
		"is asleep": {"stopped", errWanted.Error() + ": after SIGTERM killed by SIGTERM"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := home(t)
			mode, n := test.mode, map[string]int{"tree": 2, "stubborn": 2, "polite": 1, "stopped": 1}[test.mode]
			if mode == "stopped" {
				mode = "leaf"
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			results := make(chan dispatch.Result, 1)
			grace := 20 * time.Second
			if mode == "stubborn" {
				grace = 200 * time.Millisecond
			}
			config := self(mode, subprocess.Config{KillGrace: grace, Env: []string{dirEnv + "=" + dir}})
			go func() {
				results <- runContext(ctx, t, config, dispatch.Job{Deadline: time.Now().Add(time.Hour)})
			}()
			eventually(t, 20*time.Second, "the children are there", func() bool { return len(settled(dir)) == n })
			if test.mode == "stopped" {
				for pid := range settled(dir) {
					if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
						t.Error(err)
					}
				}
			}
			cancel(errWanted)
			got := <-results
			if got.Outcome != dispatch.OutcomeRetry || errorText(got) != test.want || !errors.Is(got.Err, errWanted) {
				t.Errorf("got %v: %v", got.Outcome, got.Err)
			}
			expectGone(t, dir, n)
		})
	}
}

func TestCauseCutsTheGrace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cause error
		most  time.Duration
	}{
		"lease lost":   {dispatch.ErrLeaseLost, 5 * time.Second},
		"lease ending": {dispatch.ErrLeaseEnding, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := home(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			results := make(chan dispatch.Result, 1)
			config := self("stubborn", subprocess.Config{KillGrace: time.Hour, Env: []string{dirEnv + "=" + dir}})
			go func() { results <- runContext(ctx, t, config, dispatch.Job{}) }()
			eventually(t, 20*time.Second, "the children are there", func() bool { return len(settled(dir)) == 2 })
			cancel(test.cause)
			start := time.Now()
			if got := <-results; got.Outcome != dispatch.OutcomeRetry || !errors.Is(got.Err, test.cause) {
				t.Errorf("got %v: %v", got.Outcome, got.Err)
			}
			if took := time.Since(start); took > test.most {
				t.Errorf("took %s", took)
			}
			expectGone(t, dir, 2)
		})
	}
}

func TestCancelledBeforeTheStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errWanted)
	dir := home(t)
	got := runContext(ctx, t, self("leaf", subprocess.Config{Env: []string{dirEnv + "=" + dir}}), dispatch.Job{})
	if got.Outcome != dispatch.OutcomeRetry || !errors.Is(got.Err, errWanted) || len(settled(dir)) != 0 {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
}

func TestWhatAChildLeavesIsKilled(t *testing.T) {
	t.Parallel()
	dir := home(t)
	start := time.Now()
	got := run(t, self("lingering", subprocess.Config{Env: []string{dirEnv + "=" + dir}}), dispatch.Job{})
	if got.Outcome != dispatch.OutcomeDone || string(got.Output) != `{"left":1}` {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
	expectGone(t, dir, 1)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s: the grandchild's hold on the output was waited for", took)
	}
}

func TestDaemonOutsideTheGroupHoldsNothingUp(t *testing.T) {
	t.Parallel()
	dir := home(t)
	got := run(t, self("daemon", subprocess.Config{Env: []string{dirEnv + "=" + dir}}), dispatch.Job{})
	if got.Outcome != dispatch.OutcomeDone || string(got.Output) != `{"left":1}` {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
	for pid := range settled(dir) {
		if !alive(pid) {
			t.Error("the daemon didn't outlive the job: this test shows nothing")
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	expectGone(t, dir, 1)
}

func TestNoZombieIsLeft(t *testing.T) {
	t.Parallel()
	got := run(t, self("pid", subprocess.Config{}), dispatch.Job{})
	pid, err := strconv.Atoi(string(got.Output))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestEnvironment(t *testing.T) {
	for _, name := range []string{"PGPASSWORD", "PGHOST", "DATABASE_URL", "PGBELL_DATABASE_URL", "PGBELL_ATTEMPT", "HOOK_SECRET", "HOOK_SECRET_2", "PLAIN", "OVER"} {
		t.Setenv(name, "parent's "+name)
	}
	job := dispatch.Job{ID: "0198", Type: "two\nlines", Attempt: 2, MaxAttempts: 5, Lease: "l-1", Deadline: time.Date(2100, 2, 3, 4, 5, 6, 7e6, time.FixedZone("x", 3600))}
	ofJob := map[string]string{
		"PGBELL_JOB_ID": "0198", "PGBELL_JOB_TYPE": "two\nlines", "PGBELL_ATTEMPT": "2", "PGBELL_MAX_ATTEMPTS": "5",
		"PGBELL_LEASE": "l-1", "PGBELL_DEADLINE": "2100-02-03T03:05:06.007Z",
	}
	tests := map[string]struct {
		config subprocess.Config
		want   map[string]string
		not    []string
	}{
		"default": {
			subprocess.Config{Env: []string{"OVER=mine", "MORE=a=b"}},
			map[string]string{"PLAIN": "parent's PLAIN", "OVER": "mine", "MORE": "a=b", "HOOK_SECRET": "parent's HOOK_SECRET", "PATH": os.Getenv("PATH")},
			[]string{"PGPASSWORD", "PGHOST", "DATABASE_URL", "PGBELL_DATABASE_URL"},
		},
		"withhold": {
			subprocess.Config{Withhold: []string{"HOOK_*"}},
			map[string]string{"PLAIN": "parent's PLAIN"},
			[]string{"PGPASSWORD", "HOOK_SECRET", "HOOK_SECRET_2"},
		},
		"inherit some": {
			subprocess.Config{Inherit: []string{"PG*", "PGHOST", "HOOK_SECRET"}},
			map[string]string{"PGHOST": "parent's PGHOST", "HOOK_SECRET": "parent's HOOK_SECRET"},
			[]string{"PGPASSWORD", "PLAIN", "HOOK_SECRET_2", "PATH", "PGBELL_DATABASE_URL"},
		},
		"inherit none": {
			subprocess.Config{Inherit: []string{}, Env: []string{"DATABASE_URL=given"}},
			map[string]string{"DATABASE_URL": "given"},
			[]string{"PLAIN", "PATH"},
		},
		"the job's own can't be inherited": {
			subprocess.Config{Inherit: []string{"PGBELL_ATTEMPT"}}, nil, nil,
		},
		"dir": {
			subprocess.Config{Dir: "/"}, map[string]string{"PWD": "/"}, nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := run(t, self("env", test.config), job)
			if got.Outcome != dispatch.OutcomeDone {
				t.Fatalf("got %v: %v", got.Outcome, got.Err)
			}
			env := map[string]string{}
			if err := json.Unmarshal(got.Output, &env); err != nil {
				t.Fatal(err)
			}
			for _, wants := range []map[string]string{test.want, ofJob} {
				for name, want := range wants {
					if env[name] != want {
						t.Errorf("%s is %q, want %q", name, env[name], want)
					}
				}
			}
			for _, name := range test.not {
				if value, there := env[name]; there {
					t.Errorf("%s reached the child: %q", name, value)
				}
			}
		})
	}
}

func TestDirIsTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "here.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf '\"%s\"' \"$(pwd)\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	got := run(t, subprocess.Config{Command: []string{"./here.sh"}, Dir: dir}, dispatch.Job{})
	if got.Outcome != dispatch.OutcomeDone || !strings.HasSuffix(string(got.Output), dir+`"`) {
		t.Errorf("got %v, %s: %v", got.Outcome, got.Output, got.Err)
	}
}

func TestCommandThatCannotStartIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(script string) error{
		"removed":        os.Remove,
		"not executable": func(script string) error { return os.Chmod(script, 0o600) },
		"no program":     func(script string) error { return os.WriteFile(script, []byte("\x7fELF"), 0o700) },
		"dir removed":    func(script string) error { return os.RemoveAll(filepath.Dir(script)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "work")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			script := filepath.Join(dir, "job.sh")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			handler, err := subprocess.New(subprocess.Config{Command: []string{script}, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if got := handler.Run(t.Context(), dispatch.Job{}); got.Outcome != dispatch.OutcomeDone {
				t.Fatalf("got %v: %v", got.Outcome, got.Err)
			}
			if err := breaks(script); err != nil {
				t.Fatal(err)
			}
			got := handler.Run(t.Context(), dispatch.Job{})
			if got.Outcome != dispatch.OutcomeUnavailable || !strings.HasPrefix(errorText(got), "start command: ") || !strings.Contains(errorText(got), dir) {
				t.Errorf("got %v: %v", got.Outcome, got.Err)
			}
		})
	}
}

func TestJobWithNULFailsForGood(t *testing.T) {
	t.Parallel()
	got := run(t, self("say", subprocess.Config{}, "", "", "0"), dispatch.Job{Type: "a\x00b"})
	if got.Outcome != dispatch.OutcomeFail {
		t.Errorf("got %v: %v", got.Outcome, got.Err)
	}
}

func TestNewReportsAllMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		config subprocess.Config
		want   []string
	}{
		"no command": {subprocess.Config{}, []string{"command: missing"}},
		"not in PATH": {
			subprocess.Config{Command: []string{"pgbell-no-such-program"}},
			[]string{"command: pgbell-no-such-program is not in PATH (" + os.Getenv("PATH") + "); write its whole path, or install it"},
		},
		"no such file":   {subprocess.Config{Command: []string{"/no/such/program"}}, []string{"command:", "/no/such/program", "no such file"}},
		"not executable": {subprocess.Config{Command: []string{file}}, []string{"command:", file, "permission denied"}},
		"many": {
			subprocess.Config{
				Command: []string{"sh", "a\x00"}, Dir: file, Env: []string{"s3cret", "A=\x00", "PGBELL_LEASE=x"},
				Inherit: []string{"A*B"}, Withhold: []string{""}, KillGrace: -1, MaxOutput: -1,
			},
			[]string{
				"command: argument 1 holds a NUL byte", "dir: " + file + " is not a directory", "env: each entry must read NAME=value",
				`env: "A" holds a NUL byte`, "env: PGBELL_LEASE is set for each attempt", `inherit: "A*B"`, `withhold: ""`,
				"kill grace: -1ns is negative", "max output: -1 is negative",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := subprocess.New(test.config)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %s", want, err)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a value is shown: %s", err)
			}
		})
	}
}

func TestNewKeepsACopy(t *testing.T) {
	t.Parallel()
	config := self("say", subprocess.Config{}, "1", "", "0")
	handler, err := subprocess.New(config)
	if err != nil {
		t.Fatal(err)
	}
	config.Command[1] = "2"
	if got := handler.Run(t.Context(), dispatch.Job{}); !bytes.Equal(got.Output, []byte("1")) {
		t.Errorf("got %s: %v", got.Output, got.Err)
	}
}
