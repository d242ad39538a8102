package postgres_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/postgres"
)

// Not parallel: it sets the environment.
func TestFindBinOrder(t *testing.T) {
	tests := []struct {
		name    string
		env     func(root string) map[string]string
		folders []string // with initdb and postgres
		want    string   // under root; empty: ErrNotFound
	}{
		{name: "PG_BIN before all",
			env: func(root string) map[string]string {
				return map[string]string{"PG_BIN": root + "/own", "PATH": root + "/path"}
			},
			folders: []string{"own", "path", "usr/lib/postgresql/17/bin"}, want: "own"},
		{name: "PATH before the system's",
			env:     func(root string) map[string]string { return map[string]string{"PATH": root + "/path"} },
			folders: []string{"path", "usr/lib/postgresql/17/bin"}, want: "path"},
		{name: "PATH before pg_config",
			env: func(root string) map[string]string {
				return map[string]string{"PATH": root + "/config:" + root + "/path"}
			},
			folders: []string{"path", "configured"}, want: "path"},
		{name: "pg_config before the system's",
			env:     func(root string) map[string]string { return map[string]string{"PATH": root + "/config"} },
			folders: []string{"configured", "usr/lib/postgresql/17/bin"}, want: "configured"},
		{name: "newest of Debian's, as a number",
			folders: []string{"usr/lib/postgresql/9.6/bin", "usr/lib/postgresql/15/bin", "usr/lib/postgresql/10/bin"},
			want:    "usr/lib/postgresql/15/bin"},
		{name: "Debian's before Homebrew's",
			folders: []string{"usr/lib/postgresql/14/bin", "opt/homebrew/opt/postgresql@17/bin"}, want: "usr/lib/postgresql/14/bin"},
		{name: "Red Hat's newest",
			folders: []string{"usr/pgsql-9.6/bin", "usr/pgsql-16/bin"}, want: "usr/pgsql-16/bin"},
		{name: "Homebrew's newest",
			folders: []string{"opt/homebrew/opt/postgresql@9/bin", "opt/homebrew/opt/postgresql@17/bin"},
			want:    "opt/homebrew/opt/postgresql@17/bin"},
		{name: "Postgres.app",
			folders: []string{"Applications/Postgres.app/Contents/Versions/16/bin", "Applications/Postgres.app/Contents/Versions/17/bin"},
			want:    "Applications/Postgres.app/Contents/Versions/17/bin"},
		{name: "none"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for _, folder := range test.folders {
				binaries(t, filepath.Join(root, folder))
			}
			// A folder with clients alone is no server, wherever it stands.
			executable(t, filepath.Join(root, "usr/lib/postgresql/18/bin/psql"), "exit 1")
			executable(t, filepath.Join(root, "config/pg_config"), fmt.Sprintf("echo '%s/configured'", root))
			t.Setenv("PG_BIN", "")
			t.Setenv("PATH", "")
			if test.env != nil {
				for name, value := range test.env(root) {
					t.Setenv(name, value)
				}
			}
			got, err := postgres.FindBinUnder(root, 0)
			if test.want == "" {
				if !errors.Is(err, postgres.ErrNotFound) {
					t.Fatalf("found %q, %v; want ErrNotFound", got, err)
				}
				return
			}
			if err != nil || got != filepath.Join(root, test.want) {
				t.Fatalf("found %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestFindBinFollowsALinkOnPath(t *testing.T) {
	root := resolved(t, t.TempDir())
	binaries(t, root+"/elsewhere")
	if err := os.MkdirAll(root+"/path", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root+"/elsewhere/postgres", root+"/path/postgres"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PG_BIN", "")
	t.Setenv("PATH", root+"/path")
	if got, err := postgres.FindBinUnder(root, 0); err != nil || got != root+"/elsewhere" {
		t.Errorf("found %q, %v", got, err)
	}
}

// Not parallel: it sets the environment. What the binary says of itself counts, not where it is.
func TestFindBinOfAVersion(t *testing.T) {
	root := t.TempDir()
	for folder, said := range map[string]string{
		"own": "15.18 (Debian 15.18-0+deb12u1)", "path": "16.2", "usr/lib/postgresql/18/bin": "18beta1",
		"usr/lib/postgresql/17/bin": "17.10", "opt/homebrew/opt/postgresql/bin": "14.23 (Homebrew)",
	} {
		binaries(t, filepath.Join(root, folder))
		executable(t, filepath.Join(root, folder, "postgres"), "echo 'postgres (PostgreSQL) "+said+"'")
	}
	t.Setenv("PG_BIN", root+"/own")
	t.Setenv("PATH", root+"/path")
	for major, want := range map[int]string{
		0: "own", 14: "opt/homebrew/opt/postgresql/bin", 15: "own", 16: "path", 17: "usr/lib/postgresql/17/bin", 18: "usr/lib/postgresql/18/bin",
	} {
		if got, err := postgres.FindBinUnder(root, major); err != nil || got != filepath.Join(root, want) {
			t.Errorf("version %d: found %q, %v; want %s", major, got, err, want)
		}
	}
	if _, err := postgres.FindBinUnder(root, 13); !errors.Is(err, postgres.ErrNotFound) || !strings.Contains(err.Error(), "version 13") {
		t.Errorf("version 13: error %v", err)
	}
}

func TestFindBinSaysWhatToDo(t *testing.T) {
	root := t.TempDir()
	t.Setenv("PG_BIN", root+"/typo")
	if _, err := postgres.FindBinUnder(root, 0); err == nil || !strings.Contains(err.Error(), "PG_BIN is "+root+"/typo") {
		t.Errorf("wrong PG_BIN: error %v", err)
	}
	t.Setenv("PG_BIN", "")
	executable(t, root+"/path/dnf", "exit 1")
	t.Setenv("PATH", root+"/path")
	if _, err := postgres.FindBinUnder(root, 0); err == nil || !strings.Contains(err.Error(), "dnf install postgresql-server") {
		t.Errorf("no server, dnf on PATH: error %v", err)
	}
}

func TestAccountReach(t *testing.T) {
	dir := shared(t)
	open, closed := filepath.Join(dir, "open"), filepath.Join(dir, "closed")
	for _, folder := range []string{open, filepath.Join(closed, "inner")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Reach(open); err != nil {
		t.Errorf("open folder: %v", err)
	}
	err := postgres.Reach(filepath.Join(closed, "inner"))
	if err == nil || !strings.Contains(err.Error(), "nobody") || !strings.HasSuffix(err.Error(), closed) {
		t.Errorf("folder in a closed one: error %v, want one that names the user and the closed folder", err)
	}
	t.Setenv("TMPDIR", closed)
	if got, err := postgres.Temporary(); err != nil || got != "/tmp" {
		t.Errorf("with a closed TMPDIR: %q, %v; want /tmp", got, err)
	}
	server := start(t, postgres.Options{})
	query(t, server, "SELECT 'up'")
}

func binaries(t *testing.T, folder string) {
	t.Helper()
	executable(t, filepath.Join(folder, "initdb"), "exit 1")
	executable(t, filepath.Join(folder, "postgres"), "exit 1")
}

func executable(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func resolved(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func listen(t *testing.T, port int) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
