package migrations

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// script of a migration: what its transaction holds, with the row in pgbell_migrations.
func (i installation) script(m migration) string {
	record := fmt.Sprintf(sqlRecord, m.version, m.version-1, m.name, m.checksum, m.serves)
	return fmt.Sprintf("-- pgbell %04d_%s, schema %s\n", m.version, m.name, i.quoted) +
		i.pin() + i.fill(record) + i.fill(m.up) + sqlUnpin
}

// Print writes the migrations above version from as plain SQL, one transaction each: what Up runs. After
// "pgbell migrate print | psql", Status says current. A migration that is applied already ends with an error, and
// changes nothing; so does one whose predecessor failed.
func Print(w io.Writer, config Config, from int) error {
	i, err := config.installation()
	if err != nil {
		return err
	}
	all, err := after(from)
	if err != nil {
		return err
	}
	for _, m := range all {
		if _, err := io.WriteString(w, "BEGIN;\n"+i.script(m)+"COMMIT;\n\n"); err != nil {
			return fmt.Errorf("print migration %04d_%s: %w", m.version, m.name, err)
		}
	}
	return nil
}

func after(from int) ([]migration, error) {
	if from < 0 || from > Version {
		return nil, fmt.Errorf("print migrations: from %d: not between 0 and %d", from, Version)
	}
	all, err := load()
	if err != nil {
		return nil, err
	}
	return all[from:], nil
}

var numbered = regexp.MustCompile(`^(\d+)_(.+)\.sql$`)

// PrintDir writes the migrations above version from into a folder of another tool's migrations, made if need be: one file
// per migration, named like 20250131120000_pgbell_job_status.sql, after the files that are there, with a number of their
// kind. It returns the paths that it wrote. Files that an earlier call wrote are left as they are; one with other content is
// an error, and nothing is written.
//
// The files hold no BEGIN and no COMMIT, since tools that carry migrations, like the Supabase CLI, run each file and note
// it in one transaction; by hand that is psql -1 -f. Outside of a transaction a file's first statement fails (psql goes on
// after that, unless ON_ERROR_STOP is set).
func PrintDir(dir string, config Config, from int) ([]string, error) {
	i, err := config.installation()
	if err != nil {
		return nil, err
	}
	all, err := after(from)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("print migrations: %w", err)
	}
	there, number, err := scan(dir)
	if err != nil {
		return nil, err
	}
	type file struct{ path, text string }
	var fresh []file
	var mistakes []error
	for _, m := range all {
		name := i.fileName(m)
		path, found := there[name]
		if !found {
			fresh = append(fresh, file{filepath.Join(dir, number()+"_"+name+".sql"), i.script(m)})
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("print migrations: %w", err))
		} else if !bytes.Equal(text, []byte(i.script(m))) {
			mistakes = append(mistakes, fmt.Errorf("print migrations: %s is there with another text: move it away if it was never applied", path))
		}
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	var written []string
	for _, f := range fresh {
		if err := os.WriteFile(f.path, []byte(f.text), 0o644); err != nil {
			return written, fmt.Errorf("print migrations: %w", err)
		}
		written = append(written, f.path)
	}
	return written, nil
}

// fileName of a migration, without number and ending.
func (i installation) fileName(m migration) string {
	if i.schema == "public" {
		return "pgbell_" + m.name
	}
	slug := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(i.schema))
	return "pgbell_" + slug + "_" + m.name
}

// scan finds what is in a folder of migrations, by name without number, and makes numbers that sort after all of them:
// times, or wherever those in use are shorter, one more each.
func scan(dir string) (there map[string]string, number func() string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("print migrations: %w", err)
	}
	there = map[string]string{}
	var numbers []string
	for _, entry := range entries {
		if parts := numbered.FindStringSubmatch(entry.Name()); parts != nil {
			numbers = append(numbers, parts[1])
			name := strings.TrimSuffix(parts[2], ".up")
			there[name] = filepath.Join(dir, entry.Name())
		}
	}
	last := time.Now().UTC().Format("20060102150405")
	if len(numbers) > 0 {
		if newest := slices.MaxFunc(numbers, byNumber); len(newest) != len(last) || newest >= last {
			last = increment(newest)
		}
	}
	return there, func() string {
		given := last
		last = increment(last)
		return given
	}, nil
}

// byNumber compares decimal numbers of any length.
func byNumber(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// increment a decimal number of any length, keeping its width.
func increment(number string) string {
	digits := []byte(number)
	for n := len(digits) - 1; n >= 0; n-- {
		if digits[n] != '9' {
			digits[n]++
			return string(digits)
		}
		digits[n] = '0'
	}
	return "1" + string(digits)
}
