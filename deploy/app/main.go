// Command app is a small application beside pgbell, for the examples in deploy. It takes sign-ups and welcomes each by a job:
//
//	POST /signups   {"email": "..."}: stores the sign-up and inserts the job, in one transaction
//	GET  /signups   all of them
//	POST /jobs      pgbell's webhook
//	GET  /healthz
//
// There is nothing of pgbell in it: an INSERT on one side, an HTTP endpoint on the other. Configured by DATABASE_URL,
// WEBHOOK_SECRET (whsec_..., the one in pgbell.yaml) and ADDR. With -check it asks a running app's /healthz and exits 0 or 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	check := flag.Bool("check", false, "ask the app at ADDR whether it is healthy")
	flag.Parse()
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "127.0.0.1:8000"
	}
	work := serve
	if *check {
		work = checkHealth
	}
	if err := work(ctx, addr); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, addr string) error {
	key, err := parseSecret(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		return fmt.Errorf("WEBHOOK_SECRET: %w", err)
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("configure database: %w", err)
	}
	defer pool.Close()
	app := &app{pool: pool, key: key}
	if err := app.prepare(ctx); err != nil {
		return err
	}
	server := &http.Server{Addr: addr, Handler: app.routes(), ReadTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	fmt.Fprintln(os.Stderr, "listening on", addr)
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// checkHealth is for container health checks: the image has no other program.
func checkHealth(ctx context.Context, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("ADDR: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort("127.0.0.1", port)+"/healthz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz answers %s", response.Status)
	}
	return nil
}
