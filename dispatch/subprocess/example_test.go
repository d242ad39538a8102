package subprocess_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
)

// A program that uses a Guard calls subprocess.GuardMain first thing in its main.
func Example() {
	guard, err := subprocess.NewGuard(subprocess.GuardConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- guard.Run(ctx) }()

	handler, err := subprocess.New(subprocess.Config{Command: []string{"tr", "a-z", "A-Z"}, Guard: guard})
	if err != nil {
		fmt.Println(err)
		return
	}
	// A Dispatcher does this, with dispatch.Config{Types: map[string]dispatch.Type{"shout": {Handler: handler}}}.
	result := handler.Run(ctx, dispatch.Job{
		ID: "0198c3f2-0000-7000-8000-000000000001", Type: "shout", Payload: []byte(`{"say": "hi"}`),
		Attempt: 1, MaxAttempts: 3, Deadline: time.Now().Add(time.Minute),
	})
	fmt.Printf("%s\n", result.Output)

	stop() // when the Dispatcher's Run has returned
	fmt.Println(<-ended)
	// Output:
	// {"SAY": "HI"}
	// <nil>
}
