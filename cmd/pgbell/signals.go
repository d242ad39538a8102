package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that is done at the first SIGINT or SIGTERM. At the second the process exits at once, with
// the code that a shell gives to a process which that signal has ended. Stop ends the watch.
func untilSignal(parent context.Context, exit func(code int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ended, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		for count := 0; ; {
			select {
			case <-ended:
				return
			case got := <-signals:
				if count++; count == 1 {
					cancel()
					continue
				}
				number, _ := got.(syscall.Signal)
				exit(exitSignal + int(number))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		<-left
		cancel()
	}
}
