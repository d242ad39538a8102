package migrations

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// Config of an installation. The zero value of each field stands for its default.
type Config struct {
	// Schema to install in, made if it isn't there: up to 56 bytes, without double quotes, dollar signs and control
	// characters. Defaults to "public".
	Schema string

	// LockTimeout is how long one try may wait for a lock on a table. Everybody else's statements on it queue meanwhile.
	// Defaults to 1 s.
	LockTimeout time.Duration

	// Wait is for how long to try again while locks can't be had. Defaults to 1 min.
	Wait time.Duration

	// Logger gets each migration, and who is waited for, at info. Defaults to no log.
	Logger zerolog.Logger
}

// Channel that the installation in this schema notifies on. It is at most 63 bytes, as Postgres wants it.
func Channel(schema string) string { return "pgbell_" + orPublic(schema) }

// CheckSchema says whether pgbell can be installed in a schema of this name.
func CheckSchema(schema string) error {
	if schema == "" {
		return errors.New("schema: the name is empty")
	}
	switch {
	case !utf8.ValidString(schema):
		return fmt.Errorf("schema %q: the name is not valid UTF-8", schema)
	case len(schema) > 56:
		return fmt.Errorf("schema %q: the name has %d bytes; at most 56 fit into the notification channel's name", schema, len(schema))
	case strings.ContainsAny(schema, `"$`):
		return fmt.Errorf("schema %q: the name holds a double quote or a dollar sign; choose one without", schema)
	case strings.ContainsFunc(schema, unicode.IsControl):
		return fmt.Errorf("schema %q: the name holds a control character; choose one without", schema)
	case strings.HasPrefix(schema, "pg_"), schema == "information_schema":
		return fmt.Errorf("schema %q: the name is reserved by Postgres; choose another", schema)
	}
	return nil
}

func orPublic(schema string) string {
	if schema == "" {
		return "public"
	}
	return schema
}

// installation is a checked Config.
type installation struct {
	schema, quoted, literal string
	lockTimeout, wait       time.Duration
	logger                  zerolog.Logger
}

func (c Config) installation() (installation, error) {
	var mistakes []error
	schema := orPublic(c.Schema)
	mistakes = append(mistakes, CheckSchema(schema))
	i := installation{
		schema: schema, quoted: `"` + schema + `"`, literal: quoteLiteral(schema),
		lockTimeout: c.LockTimeout, wait: c.Wait, logger: c.Logger,
	}
	if i.lockTimeout == 0 {
		i.lockTimeout = time.Second
	}
	if i.wait == 0 {
		i.wait = time.Minute
	}
	// A lock_timeout of 0 would mean none.
	if i.lockTimeout < time.Millisecond || i.lockTimeout > time.Hour {
		mistakes = append(mistakes, fmt.Errorf("lock timeout %s: not between 1 ms and 1 h", i.lockTimeout))
	}
	if i.wait < 0 {
		mistakes = append(mistakes, fmt.Errorf("wait %s: negative", i.wait))
	}
	return i, errors.Join(mistakes...)
}

// command that mends what an error says.
func (i installation) command(verb string) string {
	if i.schema == "public" {
		return "pgbell migrate " + verb
	}
	if strings.ContainsFunc(i.schema, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return "pgbell migrate " + verb + " --schema '" + strings.ReplaceAll(i.schema, "'", `'\''`) + "'"
	}
	return "pgbell migrate " + verb + " --schema " + i.schema
}

// quoteLiteral relies on standard_conforming_strings, as pgx does.
func quoteLiteral(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
