package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

func Example() {
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var job struct{ Data struct{ To string } }
		if err := json.Unmarshal(body, &job); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest) // never to be retried
			return
		}
		_, _ = fmt.Fprintf(w, `{"sent_to": %q}`, job.Data.To)
	}))
	defer application.Close()

	handler, err := webhook.New(webhook.Config{
		URL:     application.URL,
		Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer handler.Close()

	// A Dispatcher does this, with the handler in its Config.Types.
	result := handler.Run(context.Background(), dispatch.Job{
		ID: "01957f0e-8d2b-7c3a-9f4e-2b6d1a0c5e77", Type: "send_email", Payload: json.RawMessage(`{"to": "a@b.c"}`), Attempt: 1, MaxAttempts: 3,
	})
	fmt.Println(result.Outcome == dispatch.OutcomeDone, string(result.Output))
	// Output: true {"sent_to": "a@b.c"}
}
