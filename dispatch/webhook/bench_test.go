package webhook_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

// BenchmarkRun has 256 jobs of 1 kB in flight to a server in the same process.
func BenchmarkRun(b *testing.B) {
	server := serve(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"ok":true}`)
	})
	h := newHandler(b, webhook.Config{URL: server.URL, Secrets: []string{secret}})
	job := newJob()
	job.Payload = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 256 {
		workers.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if result := h.Run(ctx, job); result.Outcome != dispatch.OutcomeDone {
					b.Error(result.Err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkPrepare is the part of Run that isn't net/http.
func BenchmarkPrepare(b *testing.B) {
	h := newHandler(b, webhook.Config{URL: "http://127.0.0.1/", Secrets: []string{secret}})
	job := newJob()
	job.Payload = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
	b.ReportAllocs()
	for b.Loop() {
		h.Prepared(job, job.CreatedAt)
	}
}
