package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
	"github.com/pgbell/pgbell/internal/conformance"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(t *testing.T, _ string, behaviour conformance.Behaviour) dispatch.Handler {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) { behave(t, behaviour, w, r) })
		return newHandler(t, webhook.Config{URL: server.URL, Secrets: []string{secret}})
	})
}

// behave is an application's endpoint.
func behave(t *testing.T, behaviour conformance.Behaviour, w http.ResponseWriter, r *http.Request) {
	var request struct {
		Type string
		Data json.RawMessage
		Job  struct {
			ID          string
			Attempt     int
			MaxAttempts int `json:"max_attempts"`
		}
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		t.Errorf("read request: %v", err)
		return
	}
	write := func(format string, args ...any) {
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			t.Errorf("write answer: %v", err)
		}
	}
	switch behaviour {
	case conformance.Echo:
		w.Header().Set("Content-Type", "application/json")
		write("%s", request.Data)
	case conformance.Describe:
		w.Header().Set("Content-Type", "application/json")
		write(`{"id": %q, "type": %q, "attempt": %d, "max_attempts": %d, "lease": %q}`,
			request.Job.ID, request.Type, request.Job.Attempt, request.Job.MaxAttempts, r.Header.Get("X-Job-Lease"))
	case conformance.Flaky:
		if request.Job.Attempt < 3 {
			w.WriteHeader(http.StatusInternalServerError)
			write("flaky attempt %d", request.Job.Attempt)
		}
	case conformance.Hopeless:
		w.WriteHeader(http.StatusInternalServerError)
		write("hopeless")
	case conformance.Permanent:
		w.WriteHeader(http.StatusUnprocessableEntity)
		write("permanent")
	case conformance.Slow:
		<-r.Context().Done()
	case conformance.Loud:
		w.WriteHeader(http.StatusInternalServerError)
		write("%s", strings.Repeat("loud\n", 30_000))
	}
}
