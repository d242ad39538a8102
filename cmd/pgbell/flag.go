package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/internal/config"
)

// durationValue is a flag that takes durations as the configuration does: 90s, 15m, 7d.
type durationValue time.Duration

func (d *durationValue) String() string { return config.FormatDuration(time.Duration(*d)) }
func (d *durationValue) Type() string   { return "duration" }
func (d *durationValue) Set(text string) error {
	parsed, err := config.ParseDuration(text)
	*d = durationValue(parsed)
	return err
}

func durationFlag(command *cobra.Command, target *time.Duration, name string, byDefault time.Duration, usage string) {
	*target = byDefault
	command.Flags().Var((*durationValue)(target), name, usage)
}
