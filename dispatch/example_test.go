package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
	"github.com/pgbell/pgbell/listener"
)

type email struct{ To string }

// A program that runs jobs of its own, by Go functions.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	bell, err2 := listener.New(listener.Config{URL: os.Getenv("DATABASE_URL")})
	sendEmail := gofunc.Typed(func(_ context.Context, _ dispatch.Job, args email) (any, error) {
		fmt.Println("to", args.To)
		return nil, nil
	})
	dispatcher, err3 := dispatch.New(pool, dispatch.Config{Bell: bell, Presence: bell,
		Types: map[string]dispatch.Type{"send_email": {Handler: sendEmail}}})
	if err := errors.Join(err, err2, err3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	listening, hangUp := context.WithCancel(context.Background()) // as long as the dispatcher runs
	go func() { _ = dispatcher.Run(ctx); hangUp() }()
	_ = bell.Run(listening)
}
