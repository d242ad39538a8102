package demo

// task is a function that runs in a goroutine of its own.
type task struct {
	done chan struct{}
	err  error // after done
}

func start(run func() error) *task {
	t := &task{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = run()
	}()
	return t
}

func (t *task) wait() error {
	<-t.done
	return t.err
}
