package dispatch

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// database says in the log when the database stops and starts to answer: once, and a reminder each half minute, however
// many statements fail meanwhile.
type database struct {
	log zerolog.Logger

	mu       sync.Mutex
	since    time.Time // zero while it answers
	reminded time.Time
}

const remindEvery = 30 * time.Second

func (d *database) down(doing string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.since.IsZero() {
		d.since = now
	} else if now.Sub(d.reminded) < remindEvery {
		return
	}
	d.reminded = now
	d.log.Warn().Str("doing", doing).Err(err).Dur("down_ms", now.Sub(d.since)).Msg("database statement failed, trying again")
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
