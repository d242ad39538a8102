package postgres

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotFound is returned where no Postgres server binaries were found. Its text says how to get them.
var ErrNotFound = errors.New("no Postgres server found on this machine: install one (apt-get install postgresql, " +
	"dnf install postgresql-server, brew install postgresql), or name the folder of its binaries in PG_BIN")

// FindBin finds the folder with initdb and postgres: PG_BIN, then PATH, pg_config --bindir, and where Debian,
// Red Hat, Homebrew and Postgres.app put them, the newest version first.
func FindBin() (string, error) {
	var folders []string
	if folder := os.Getenv("PG_BIN"); folder != "" {
		folders = append(folders, folder)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		folders = append(folders, filepath.Dir(path))
	}
	if output, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		folders = append(folders, strings.TrimSpace(string(output)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
		folders = append(folders, found...)
	}
	for _, folder := range folders {
		if isExecutable(filepath.Join(folder, "initdb")) && isExecutable(filepath.Join(folder, "postgres")) {
			return folder, nil
		}
	}
	return "", ErrNotFound
}

// version is the first number in a path, 0 if there is none.
func version(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	number, _ := strconv.Atoi(digits[0])
	return number
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
