package dispatch

import (
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

// database says in the log when the database stops and starts to answer: once, and a reminder each half minute, however
// many statements fail meanwhile.
type database struct {
	log   zerolog.Logger
	reset func() // all connections

	mu       sync.Mutex
	since    time.Time // zero while it answers
	reminded time.Time
	renewed  time.Time
}

const (
	remindEvery = 30 * time.Second
	renewEvery  = time.Second

	mendReadOnly = "lead database.url to the primary, or name all servers in it with target_session_attrs=read-write; it is tried again " +
		"until the server may be written to"
)

// isReadOnly: the server is a standby, or a primary that was demoted.
func isReadOnly(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && refusal.Code == "25006"
}

// isUnanswered: the server said nothing.
func isUnanswered(err error) bool {
	var refusal *pgconn.PgError
	return !errors.As(err, &refusal)
}

func (d *database) down(doing string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	// The other connections are as old and lead to the same place. Each would have to fail by itself, and that takes as long as
	// a statement may take where nothing comes back.
	if (isReadOnly(err) || isUnanswered(err)) && now.Sub(d.renewed) >= renewEvery {
		d.renewed = now
		d.reset()
	}
	if d.since.IsZero() {
		d.since = now
	} else if now.Sub(d.reminded) < remindEvery {
		return
	}
	d.reminded = now
	entry := d.log.Warn().Str("doing", doing).Err(err).Dur("down_ms", now.Sub(d.since))
	if isReadOnly(err) {
		entry.Str("cause", "the server is read-only: a standby, or a primary that was demoted").Str("mend", mendReadOnly)
	}
	entry.Msg("database statement failed, trying again")
}

func (d *database) up() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since.IsZero() {
		return
	}
	d.log.Info().Dur("down_ms", time.Since(d.since)).Msg("database answers again")
	d.since = time.Time{}
}
