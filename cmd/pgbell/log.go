package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/internal/config"
)

// newLogger writes to standard error: lines of JSON, or in the console form where a person looks on.
func (a *app) newLogger(settings config.Log) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(settings.Level)
	if err != nil {
		return zerolog.Nop(), fmt.Errorf("log.level: %w", err)
	}
	w := a.stderr
	if settings.Format == "console" || settings.Format == "auto" && isTerminal(a.stderr) {
		w = zerolog.ConsoleWriter{
			Out: a.stderr, TimeFormat: time.TimeOnly, NoColor: !a.colours(),
			// The writer quotes fields, not the message.
			FormatMessage: func(message any) string {
				text, _ := message.(string)
				return printable(text)
			},
		}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger(), nil
}

// colours: only on a terminal that has them, and not where NO_COLOR forbids it (no-color.org).
func (a *app) colours() bool {
	if !isTerminal(a.stderr) {
		return false
	}
	for _, entry := range a.environ {
		name, value, _ := strings.Cut(entry, "=")
		if name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	return true
}
