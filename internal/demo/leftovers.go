package demo

import (
	"errors"
	"sync"
)

var errEnded = errors.New("the demo has ended")

// leftovers is what has to be removed at the end, whichever way it comes. It is safe for concurrent use.
type leftovers struct {
	mu      sync.Mutex
	undo    []func() error
	removed bool
}

// making calls make, which returns how to undo what it has made. A remove that comes meanwhile waits for it.
func (l *leftovers) making(make func() (undo func() error, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return errEnded
	}
	undo, err := make()
	if err != nil {
		return err
	}
	l.undo = append(l.undo, undo)
	return nil
}

// remove undoes everything, the last first. The second call does nothing.
func (l *leftovers) remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removed = true
	var errs []error
	for i := len(l.undo) - 1; i >= 0; i-- {
		errs = append(errs, l.undo[i]())
	}
	l.undo = nil
	return errors.Join(errs...)
}
