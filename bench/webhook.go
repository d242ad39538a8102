package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

const inFlight = 256

// webhookScenario: jobs by HTTP, end to end.
func webhookScenario() scenario {
	return scenario{
		name: "webhook",
		about: fmt.Sprintf("Jobs due at the start are posted, signed, to a server in this process that reads each request and answers 204; "+
			"%d at once. Sent is the time from the start of the handler until its request is written.", inFlight),
		figures: []figure{
			{name: "jobs_per_second", unit: "jobs/s"}, {name: "sent_p50", unit: "ms to sent p50", digits: 2, less: true},
			{name: "sent_p99", unit: "ms to sent p99", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			jobs := set.jobs / 2
			return []system{of(pgbell{concurrency: inFlight}, jobs, func(ctx context.Context, r round, q queue) (figures, error) {
				return drainByWebhook(ctx, r, q, jobs)
			})}
		},
	}
}

// secret is "bench" and padding: nobody's.
const secret = "whsec_YmVuY2hiZW5jaGJlbmNoYmVuY2hiZW5jaGJlbmNo"

func drainByWebhook(ctx context.Context, r round, q queue, jobs int) (_ figures, err error) {
	recorder := newRecorder(jobs)
	receiver, err := newReceiver(ctx, recorder)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receiver.stop()) }()
	inner, err := webhook.New(webhook.Config{URL: receiver.url, Secrets: []string{secret}})
	if err != nil {
		return nil, fmt.Errorf("configure webhook: %w", err)
	}
	traced := &tracedHandler{Handler: inner, sent: make([]int64, jobs)}
	var took time.Duration
	err = attend(ctx, r, q, load{recorder: recorder, handler: traced}, func(worker worker) error {
		start := time.Now()
		if err := worker.work(ctx); err != nil {
			return err
		}
		end, err := settled(ctx, r, q, recorder, worker, jobs)
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return nil, err
	}
	late := make([]float64, 0, jobs)
	for _, sent := range traced.sent[:min(int(traced.count.Load()), jobs)] {
		late = append(late, float64(sent)/1e6)
	}
	slices.Sort(late)
	return figures{
		"jobs_per_second": float64(jobs) / took.Seconds(), "sent_p50": quantile(late, 0.5), "sent_p99": quantile(late, 0.99),
	}, nil
}

// tracedHandler notes how long a handler takes until its request is written.
type tracedHandler struct {
	dispatch.Handler
	count atomic.Int64
	sent  []int64
}

func (h *tracedHandler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	start := time.Now()
	return h.Handler.Run(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		if at := h.count.Add(1) - 1; int(at) < len(h.sent) {
			h.sent[at] = time.Since(start).Nanoseconds()
		}
	}}), job)
}

// receiver is a local server that jobs are posted to.
type receiver struct {
	server *http.Server
	url    string
	ended  chan error
}

func newReceiver(ctx context.Context, recorder *recorder) (*receiver, error) {
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	take := func(w http.ResponseWriter, request *http.Request) {
		var body struct {
			Data struct {
				N *int `json:"n"`
			} `json:"data"`
		}
		text, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 1<<20))
		if err != nil || json.Unmarshal(text, &body) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if body.Data.N != nil {
			recorder.begin(*body.Data.N)
		}
		w.WriteHeader(http.StatusNoContent)
	}
	r := &receiver{url: "http://" + socket.Addr().String() + "/jobs", ended: make(chan error, 1)}
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(take)}
	go func() { r.ended <- r.server.Serve(socket) }()
	return r, nil
}

func (r *receiver) stop() error {
	err := r.server.Close()
	if serveErr := <-r.ended; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
