package subprocess_test

import (
	"bytes"
	"context"
	"os/exec"
	"testing"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
)

// What a job costs, beside what os/exec takes for the same program.
func BenchmarkRun(b *testing.B) {
	program, err := exec.LookPath("true")
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte(`{"to": "a@b.c"}`)
	b.Run("os/exec", func(b *testing.B) {
		for b.Loop() {
			cmd := exec.Command(program)
			cmd.Stdin = bytes.NewReader(payload)
			cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	job := dispatch.Job{ID: "1", Type: "bench", Payload: payload}
	measure := func(b *testing.B, guard *subprocess.Guard) {
		handler, err := subprocess.New(subprocess.Config{Command: []string{program}, Guard: guard})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if got := handler.Run(b.Context(), job); got.Outcome != dispatch.OutcomeDone {
				b.Fatal(got.Err)
			}
		}
	}
	b.Run("unguarded", func(b *testing.B) { measure(b, nil) })
	b.Run("guarded", func(b *testing.B) {
		guard, err := subprocess.NewGuard(subprocess.GuardConfig{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- guard.Run(ctx) }()
		<-guard.Ready()
		measure(b, guard)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	})
}
