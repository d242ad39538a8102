package migrations

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Mismatch is how an installation differs from what this program works with.
type Mismatch int

// The kinds of a SchemaError.
const (
	Missing Mismatch = iota + 1 // pgbell is not installed in the schema
	Older                       // the schema's version is below this program's
	Newer                       // the schema no longer serves this program's version
)

// SchemaError says that the installation doesn't fit this program.
type SchemaError struct {
	Schema string
	Kind   Mismatch
	// Installed is the schema's version, 0 if it has none; Want is this program's, Serves the oldest that the schema serves.
	Installed, Want, Serves int
	// Command mends it.
	Command string
}

func (e *SchemaError) Error() string {
	switch e.Kind {
	case Missing:
		return fmt.Sprintf("pgbell is not installed in schema %q: run %s", e.Schema, e.Command)
	case Older:
		return fmt.Sprintf("schema %q is at version %d and this pgbell needs %d: run %s", e.Schema, e.Installed, e.Want, e.Command)
	default:
		return fmt.Sprintf("schema %q is at version %d, which serves pgbell with schema version %d and later, and this one has %d: "+
			"run a newer pgbell, or with that one: %s", e.Schema, e.Installed, e.Serves, e.Want, e.Command)
	}
}

// ChangedError says that an applied migration was made from another text than this program's.
type ChangedError struct {
	Schema  string
	Version int
	Name    string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("migration %04d_%s was applied to schema %q from another text than this pgbell has: "+
		"it is another build; use the one that applied it, or a released one", e.Version, e.Name, e.Schema)
}

// ClashError lists what is in the way of an installation. Nothing was changed.
type ClashError struct {
	Schema  string
	Clashes []string
}

func (e *ClashError) Error() string {
	return fmt.Sprintf("pgbell can't be installed in schema %q, nothing was changed:\n  - %s\n"+
		"mend what is listed, or install it in a schema of its own (--schema)", e.Schema, strings.Join(e.Clashes, "\n  - "))
}

// Blocker is a session, or a prepared transaction, that holds a lock in the way.
type Blocker struct {
	PID             int32 // 0: a prepared transaction, see Prepared
	ApplicationName string
	State           string
	QueryStart      time.Time // zero where this role may not see it
	Prepared        string    // its global identifier
	Holds           string
}

func (b Blocker) String() string {
	if b.Prepared != "" {
		return fmt.Sprintf("the prepared transaction %q holds %s", b.Prepared, b.Holds)
	}
	start := "unknown"
	if !b.QueryStart.IsZero() {
		start = b.QueryStart.UTC().Format(time.RFC3339)
	}
	state := b.State
	if state == "" {
		state = "state unknown"
	}
	return fmt.Sprintf("pid %d (application_name %q, %s, query started %s) holds %s", b.PID, b.ApplicationName, state, start, b.Holds)
}

// BlockedError says that locks couldn't be had in time. Nothing of the step was done; it may be tried again.
type BlockedError struct {
	Schema   string
	Waited   time.Duration
	Blockers []Blocker // who was in the way at the last look; may be empty
	Command  string
	err      error
}

func (e *BlockedError) Error() string {
	names := make([]string, len(e.Blockers))
	for n, blocker := range e.Blockers {
		names[n] = blocker.String()
	}
	who := strings.Join(names, "; ")
	if who == "" {
		who = "who holds them couldn't be seen"
	}
	return fmt.Sprintf("schema %q: no locks after %s: %s: end what is in the way or wait for it, then run %s again",
		e.Schema, e.Waited.Round(100*time.Millisecond), who, e.Command)
}

func (e *BlockedError) Unwrap() error { return e.err }

// PrivilegeError says that the connection's role may not do what is needed.
type PrivilegeError struct {
	Role  string
	Need  string
	Grant string // what an administrator runs
	err   error
}

func (e *PrivilegeError) Error() string {
	text := fmt.Sprintf("role %q may not %s", e.Role, e.Need)
	if e.err != nil {
		text += " (" + e.err.Error() + ")"
	}
	return text + ": " + e.Grant
}

func (e *PrivilegeError) Unwrap() error { return e.err }

// RefusedError says why Down did nothing.
type RefusedError struct {
	Schema     string
	Sidecars   int // live ones
	Unfinished int // pending and processing jobs that would be lost; counted up to 1,000 each
}

func (e *RefusedError) Error() string {
	var why []string
	if e.Sidecars > 0 {
		why = append(why, fmt.Sprintf("%d sidecar(s) are running on it: stop them", e.Sidecars))
	}
	if e.Unfinished > 0 {
		why = append(why, fmt.Sprintf("%d job(s) are pending or processing and would be dropped: let them end", e.Unfinished))
	}
	return fmt.Sprintf("schema %q: not migrated down: %s, or force it", e.Schema, strings.Join(why, "; "))
}

// sqlState of an error, "" if it isn't the server's.
func sqlState(err error) string {
	var fault *pgconn.PgError
	if errors.As(err, &fault) {
		return fault.Code
	}
	return ""
}

// explain turns what the server said into an error that says what to do.
func (i installation) explain(err error, role string) error {
	var fault *pgconn.PgError
	if !errors.As(err, &fault) {
		return err
	}
	switch fault.Code {
	case "PB001": // raised by 0001_job_status
		return &ClashError{Schema: i.schema, Clashes: strings.Split(fault.Detail, "\n")}
	case "42501": // insufficient_privilege
		return &PrivilegeError{Role: role, Need: "change schema " + i.quoted, err: err,
			Grant: "connect as the role that owns pgbell's tables there"}
	}
	return err
}
