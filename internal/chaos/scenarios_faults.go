package chaos

import (
	"context"
	"errors"
	"slices"
	"time"
)

// faultScenarios are those of the network, of Postgres, and of the machine that it runs on.
var faultScenarios = slices.Concat(networkScenarios, postgresScenarios, hostScenarios)

// comeBack is what a sidecar needs, after the database is there again, until its heartbeats arrive.
const comeBack = 5 * time.Second

// hold does a fault, keeps it up for a while, and undoes it.
func (w *World) hold(ctx context.Context, fault Fault, do func() error, during time.Duration, undo func() error) error {
	strike, err := w.Begin(fault)
	if err != nil {
		return err
	}
	if err = do(); err == nil {
		err = pause(ctx, during)
	}
	return errors.Join(err, undo(), strike.End())
}

// nothing is to be done or undone.
func nothing() error { return nil }
