package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

// waiting for the database: with growing, jittered pauses, telling each new reason once and an old one once a minute.
type waiting struct {
	logger   zerolog.Logger
	began    time.Time
	pause    time.Duration
	reason   string
	lastSaid time.Time
}

func newWaiting(logger zerolog.Logger) *waiting {
	return &waiting{logger: logger, began: time.Now(), pause: firstWait}
}

// wait tells why, pauses, and returns false if ctx is done before the pause is over.
func (w *waiting) wait(ctx context.Context, err error) bool {
	reason, hint := waitReason(err)
	if reason != w.reason || time.Since(w.lastSaid) >= sayAgain {
		w.reason, w.lastSaid = reason, time.Now()
		w.logger.Warn().Str("reason", reason).Str("hint", hint).Err(diagnose(err).err).
			Int64("waited_ms", time.Since(w.began).Milliseconds()).Msg("waiting for the database")
	}
	timer := time.NewTimer(w.pause/2 + rand.N(w.pause))
	defer timer.Stop()
	w.pause = min(2*w.pause, longWait)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// over tells the end of a wait, if there was one.
func (w *waiting) over() {
	if w.reason != "" {
		w.logger.Info().Int64("waited_ms", time.Since(w.began).Milliseconds()).Msg("the database answers")
	}
}

func waitReason(err error) (reason, hint string) {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code, diagnose(err).hint
	}
	return networkReason(err)
}
