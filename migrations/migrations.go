// Package migrations brings pgbell's tables and functions into a database, and out again.
//
// What it promises:
//
//   - Each migration runs in a transaction of its own, together with its row in pgbell_migrations: it happened whole, or
//     not at all. An applied file whose text differs from this program's is an error, not a guess.
//   - Any number of processes may migrate at once, also through a transaction pooler: a transaction-level advisory lock,
//     tried and never waited for, lets one at a time through. No session state is used, and no prepared statement.
//   - No statement waits for a lock longer than Config.LockTimeout, since all others queue behind it. After Config.Wait a
//     *BlockedError names who is in the way.
//   - A jobs table that the application made before, from the recipe that many have copied, is adopted with its rows, or a
//     *ClashError lists all that is in the way and nothing is changed. Down gives it back.
//   - Print writes the very SQL that Up runs, for tools that carry migrations of their own.
//
// A migration says in its header which is the oldest schema version whose sidecars it still serves ("-- serves: 2"), so that
// two versions of pgbell can run side by side while one is replaced.
package migrations

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version of the schema that this program works with: the number of the newest migration.
const Version = 3

//go:embed *.sql
var files embed.FS

type migration struct {
	version  int
	name     string // as in the file's name: job_status
	up, down string // templates: {schema}, {name} and {channel} are filled in
	serves   int
	checksum string // of the template, so that it is the same in every schema
}

var (
	fileName = regexp.MustCompile(`^(\d{4})_([a-z0-9_]+)\.up\.sql$`)
	serves   = regexp.MustCompile(`(?m)^-- serves: (\d+)$`)
)

// load reads the embedded migrations, in order.
func load() ([]migration, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var all []migration
	for _, entry := range entries {
		parts := fileName.FindStringSubmatch(entry.Name())
		if parts == nil {
			continue
		}
		m, err := loadOne(parts[1], parts[2])
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", entry.Name(), err)
		}
		if m.version != len(all)+1 {
			return nil, fmt.Errorf("read migration %s: its number should be %d", entry.Name(), len(all)+1)
		}
		all = append(all, m)
	}
	if len(all) != Version {
		return nil, fmt.Errorf("read migrations: there are %d, not %d", len(all), Version)
	}
	return all, nil
}

func loadOne(number, name string) (migration, error) {
	stem := number + "_" + name
	up, upErr := files.ReadFile(stem + ".up.sql")
	down, downErr := files.ReadFile(stem + ".down.sql")
	if err := errors.Join(upErr, downErr); err != nil {
		return migration{}, err
	}
	header := serves.FindStringSubmatch(string(up))
	if header == nil {
		return migration{}, errors.New(`no line "-- serves: N" in its header`)
	}
	m := migration{name: name, up: string(up), down: string(down)}
	m.version, _ = strconv.Atoi(number)
	m.serves, _ = strconv.Atoi(header[1])
	if m.serves < 1 || m.serves > m.version {
		return migration{}, fmt.Errorf("it can't serve schema version %d", m.serves)
	}
	sum := sha256.Sum256(up)
	m.checksum = hex.EncodeToString(sum[:])
	return m, nil
}

// fill puts the installation's names into a template.
func (i installation) fill(template string) string {
	return strings.NewReplacer("{schema}", i.quoted, "{name}", i.literal, "{channel}", quoteLiteral("pgbell_"+i.schema)).Replace(template)
}
