package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// actor is a part of the process that runs until its context is done.
type actor struct {
	// name stands before its errors, unless it is empty.
	name string
	run  func(context.Context) error
}

// runGroup runs all actors at once and returns when all have returned. When ctx is done, or when any one returns, with or
// without an error, the others are stopped: the first in the list first, the next when that has returned, and so on. So an
// actor may rely on those behind it until it has returned. It returns the errors joined.
func runGroup(ctx context.Context, actors ...actor) error {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
		err    error
	}
	all := make([]*running, len(actors))
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	var ended sync.WaitGroup
	for i, each := range actors {
		// Not ctx itself: its end comes to each in its turn.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one := &running{cancel: cancel, done: make(chan struct{})}
		all[i] = one
		ended.Go(func() {
			defer close(one.done)
			defer stop()
			if one.err = each.run(own); one.err != nil && each.name != "" {
				one.err = fmt.Errorf("%s: %w", each.name, one.err)
			}
		})
	}
	<-stopped.Done()
	var errs []error
	for _, one := range all {
		one.cancel()
		<-one.done
		errs = append(errs, one.err)
	}
	ended.Wait()
	return errors.Join(errs...)
}
