package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// secret is a valid one, of 24 bytes.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newHandler(t testing.TB, config webhook.Config) *webhook.Handler {
	t.Helper()
	h, err := webhook.New(config)
	if err != nil {
		t.Fatal(err)
	}
	h.KeepIdle(time.Minute)
	t.Cleanup(h.Close)
	return h
}

func serve(t testing.TB, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server
}

// within returns a context that ends with the test or after a time that no test should take.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newJob() dispatch.Job {
	created := time.Date(2026, 3, 1, 9, 30, 0, 500_000_000, time.UTC)
	return dispatch.Job{
		ID: "01957f0e-8d2b-7c3a-9f4e-2b6d1a0c5e77", Type: "send_email", Payload: json.RawMessage(`{"to":"a@b.c"}`),
		Priority: -3, Attempt: 2, MaxAttempts: 5, CreatedAt: created, ScheduledFor: created.Add(time.Minute),
		Deadline: created.Add(time.Hour), Lease: "7d0c3bb2-7b1c-4f68-8d0a-6f1e5b0c9a11",
	}
}

// wantOutcome checks the outcome, and that there is an error with all of parts exactly where there must be one.
func wantOutcome(t *testing.T, result dispatch.Result, outcome dispatch.Outcome, parts ...string) {
	t.Helper()
	if result.Outcome != outcome {
		t.Fatalf("outcome %d, want %d (error: %v)", result.Outcome, outcome, result.Err)
	}
	failed := outcome == dispatch.OutcomeRetry || outcome == dispatch.OutcomeFail || outcome == dispatch.OutcomeUnavailable
	if failed != (result.Err != nil) {
		t.Fatalf("outcome %d with error %v", outcome, result.Err)
	}
	for _, part := range parts {
		if !strings.Contains(result.Err.Error(), part) {
			t.Errorf("error %q lacks %q", result.Err, part)
		}
	}
}
