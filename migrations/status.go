package migrations

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier is a *pgx.Conn, a *pgxpool.Pool or a pgx.Tx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// State of a migration in a schema.
type State string

// The states of an Entry.
const (
	Applied State = "applied"
	Pending State = "pending"
	Changed State = "changed" // applied, from another text than this program's
	Unknown State = "unknown" // applied by a newer pgbell
)

// Entry is one migration, as Status sees it.
type Entry struct {
	Version   int        `json:"version"`
	Name      string     `json:"name"`
	State     State      `json:"state"`
	Serves    int        `json:"serves"`
	AppliedAt *time.Time `json:"applied_at,omitempty"`
}

// Report says how an installation stands.
type Report struct {
	Schema string `json:"schema"`
	// Installed is the schema's version, 0 if pgbell isn't there; Want is this program's.
	Installed int `json:"installed"`
	Want      int `json:"want"`
	// Serves is the oldest schema version whose sidecars may still run on it.
	Serves int `json:"serves"`
	// Current: nothing is left for Up to do.
	Current bool `json:"current"`
	// Adopted: the jobs table was there before pgbell, and stays when pgbell goes.
	Adopted    bool    `json:"adopted"`
	Migrations []Entry `json:"migrations"`
}

// Status reports how an installation stands. It takes no locks but those of a SELECT. An installation that is missing,
// old, new or changed is no error.
func Status(ctx context.Context, db Querier, config Config) (Report, error) {
	i, err := config.installation()
	if err != nil {
		return Report{}, err
	}
	all, err := load()
	if err != nil {
		return Report{}, err
	}
	now, err := i.look(ctx, db)
	if err != nil {
		return Report{}, fmt.Errorf("read the state of schema %q: %w", i.schema, err)
	}
	report := Report{Schema: i.schema, Installed: now.version(), Want: Version, Serves: now.serves(), Migrations: []Entry{}}
	report.Current = report.Installed >= Version
	rows := map[int]applied{}
	for _, row := range now.applied {
		rows[row.version] = row
		report.Adopted = report.Adopted || row.version == 2 && row.adopted
	}
	for _, m := range all {
		entry := Entry{Version: m.version, Name: m.name, State: Pending, Serves: m.serves}
		if row, found := rows[m.version]; found {
			entry.State, entry.AppliedAt = Applied, &row.at
			if row.checksum != m.checksum {
				entry.State = Changed
			}
		}
		report.Current = report.Current && entry.State == Applied
		report.Migrations = append(report.Migrations, entry)
	}
	for _, row := range now.applied {
		if row.version > Version {
			report.Migrations = append(report.Migrations,
				Entry{Version: row.version, Name: row.name, State: Unknown, Serves: row.serves, AppliedAt: &row.at})
		}
	}
	return report, nil
}

// Check says whether this program may run on the installation in a schema: nil, a *SchemaError that names the command to
// run, a *ChangedError or a *PrivilegeError. It takes no locks but those of a SELECT.
func Check(ctx context.Context, db Querier, schema string) error {
	i, err := Config{Schema: schema}.installation()
	if err != nil {
		return err
	}
	all, err := load()
	if err != nil {
		return err
	}
	now, err := i.look(ctx, db)
	if err != nil {
		return fmt.Errorf("check schema %q: %w", i.schema, err)
	}
	if now.version() == 0 {
		return &SchemaError{Schema: i.schema, Kind: Missing, Want: Version, Command: i.command("up")}
	}
	if err := i.serving(now); err != nil {
		return err
	}
	if now.version() < Version {
		return &SchemaError{Schema: i.schema, Kind: Older, Installed: now.version(), Want: Version, Serves: now.serves(), Command: i.command("up")}
	}
	return i.unchanged(all, now)
}

// applied is a row of pgbell_migrations.
type applied struct {
	version, serves int
	name, checksum  string
	adopted         bool
	at              time.Time
}

// situation of a schema.
type situation struct {
	schemaExists, installed, mayCreate, mayRead bool
	role, database                              string
	server                                      int
	applied                                     []applied
}

func (s situation) version() int {
	if len(s.applied) == 0 {
		return 0
	}
	return s.applied[len(s.applied)-1].version
}

func (s situation) serves() int {
	oldest := 0
	for _, row := range s.applied {
		oldest = max(oldest, row.serves)
	}
	return oldest
}

func (s situation) has(version int) bool {
	for _, row := range s.applied {
		if row.version == version {
			return true
		}
	}
	return false
}

// look reads the situation.
func (i installation) look(ctx context.Context, db Querier) (situation, error) {
	var now situation
	rows, err := db.Query(ctx, i.fill(sqlSituation), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return now, err
	}
	now, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (situation, error) {
		var s situation
		err := row.Scan(&s.schemaExists, &s.installed, &s.role, &s.mayCreate, &s.mayRead, &s.database, &s.server)
		return s, err
	})
	if err != nil || !now.installed {
		return now, err
	}
	if !now.mayRead {
		return now, &PrivilegeError{Role: now.role, Need: "read pgbell's tables in schema " + i.quoted,
			Grant: fmt.Sprintf("GRANT pgbell_worker TO %s", pgx.Identifier{now.role}.Sanitize())}
	}
	if rows, err = db.Query(ctx, i.fill(sqlApplied), pgx.QueryExecModeSimpleProtocol); err != nil {
		return now, err
	}
	now.applied, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (applied, error) {
		var a applied
		err := row.Scan(&a.version, &a.name, &a.checksum, &a.serves, &a.adopted, &a.at)
		return a, err
	})
	return now, err
}

// serving: an installation that a newer pgbell made may still serve this one.
func (i installation) serving(now situation) error {
	if now.serves() <= Version {
		return nil
	}
	return &SchemaError{Schema: i.schema, Kind: Newer, Installed: now.version(), Want: Version, Serves: now.serves(),
		Command: i.command(fmt.Sprintf("down --to %d", Version))}
}

func (i installation) unchanged(all []migration, now situation) error {
	for _, m := range all {
		for _, row := range now.applied {
			if row.version == m.version && row.checksum != m.checksum {
				return &ChangedError{Schema: i.schema, Version: m.version, Name: row.name}
			}
		}
	}
	return nil
}
