package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// events as go test -json writes them: two tests pass, one of them with a subtest, one is skipped, one fails, one hangs.
const events = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"good said\n"}
{"Action":"pass","Package":"p","Test":"TestGood/sub","Elapsed":0.1}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":0.1}
{"Action":"skip","Package":"p","Test":"TestSkipped","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":1.5}
{"Action":"skip","Package":"empty","Elapsed":0}
not an event
`

const failing = `{"Action":"output","Package":"q","Test":"TestBad","Output":"bad said\n"}
{"Action":"fail","Package":"q","Test":"TestBad","Elapsed":0.1}
{"Action":"pass","Package":"q","Test":"TestFine","Elapsed":0.1}
{"Action":"output","Package":"q","Test":"TestHangs","Output":"hanging said\n"}
{"Action":"build-output","ImportPath":"r","Output":"r.go:1: no\n"}
{"Action":"fail","Package":"q","Elapsed":2}
`

func TestTableOfRuns(t *testing.T) {
	t.Setenv("POSTGRES", "") // make matrix runs this test, too
	folder := t.TempDir()
	for name, text := range map[string]string{"good": events, "bad": failing} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := `cat "$0/good"; if [ "$POSTGRES" = 18 ]; then cat "$0/bad"; exit 1; fi; echo "entry $POSTGRES$TEST_POOLED"`
	var out strings.Builder
	passed, err := run(t.Context(), &out, []string{"14", "18", "pgbouncer"}, []string{"sh", "-c", script, folder})
	if err != nil || passed {
		t.Errorf("run = %t, %v; want that one failed", passed, err)
	}
	for _, want := range []string{
		`not an event`, `entry 14\n`, `entry 1\n`, `bad said`, `hanging said`, `r.go:1: no`, `ok +p 1.5s`, `FAIL +q 2.0s`,
		`14 +1 +1 +0 +1 +0\n`, `18 +2 +2 +1 +1 +0 +exit status 1\n`, `pgbouncer +1 +1 +0 +1 +0\n`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "good said") {
		t.Error("it shows what a test said that passed")
	}
}

func TestOneFailureFailsAndAllPassingPass(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{"true": true, "false": false, "no-such-command": false} {
		var out strings.Builder
		if passed, err := run(t.Context(), &out, []string{"15"}, []string{command}); err != nil || passed != want {
			t.Errorf("%s: run = %t, %v", command, passed, err)
		}
	}
}

func TestUnknownEntryRunsNothing(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if _, err := run(t.Context(), &out, []string{"15", "pgbouncr"}, []string{"true"}); err == nil || out.Len() > 0 {
		t.Errorf("error %v, output %q", err, &out)
	}
}
