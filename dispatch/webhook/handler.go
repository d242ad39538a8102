package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

const (
	// maxStale is how many connections that turn out to be closed, before anything was sent, are passed over in an
	// attempt: after a restart of the server there may be many.
	maxStale = 3

	// patience is for how long a connection must have been waited for in vain until it is held against the endpoint
	// that there is none, rather than against the time that the attempt had.
	patience = time.Second
)

// Handler posts attempts of jobs to one URL. It is safe for concurrent use.
type Handler struct {
	settings  *settings
	name      string // what errors call the URL
	template  *http.Request
	transport *http.Transport
}

var _ dispatch.Handler = (*Handler)(nil)

// New returns a Handler. All mistakes in config are reported at once. It connects to nothing.
func New(config Config) (*Handler, error) {
	checked, err := config.check()
	if err != nil {
		return nil, err
	}
	template := &http.Request{Method: http.MethodPost, URL: checked.target, Host: checked.target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return &Handler{settings: checked, name: redacted(checked.target), template: template, transport: newTransport(checked)}, nil
}

// Close closes the idle connections. It is to be called when no Run is under way; a Run after it opens new ones.
func (h *Handler) Close() { h.transport.CloseIdleConnections() }

// Run posts job once and waits for the answer until ctx is done. The package comment says what each answer means.
func (h *Handler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	if ctx.Err() != nil {
		return h.interrupted(ctx, "before it was sent")
	}
	start := time.Now()
	body := newBody(job)
	header := h.newHeader(job, start, body)
	for stale := 0; ; stale++ {
		var sending sending
		response, err := h.transport.RoundTrip(h.newRequest(sending.trace(ctx), header, body))
		if err == nil {
			// What answered leaves unread then costs the connection, which is what an endless body deserves.
			defer func() { _ = response.Body.Close() }()
			return h.answered(ctx, response)
		}
		if ctx.Err() == nil && sending.isStale() && stale < maxStale {
			continue
		}
		return h.broken(ctx, &sending, err, time.Since(start))
	}
}

func (h *Handler) newRequest(ctx context.Context, header http.Header, body []byte) *http.Request {
	request := h.template.WithContext(ctx)
	request.Header = header
	// No GetBody: with it, net/http repeats requests that have an Idempotency-Key. A body of a type that net/http knows to be
	// in memory goes out together with the headers, in one write.
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength = int64(len(body))
	return request
}

// broken says what becomes of an attempt that got no answer.
func (h *Handler) broken(ctx context.Context, sending *sending, err error, took time.Duration) dispatch.Result {
	done := ctx.Err() != nil
	switch {
	case done && !isTimeout(ctx):
		return h.interrupted(ctx, "before the answer came")
	case !sending.isConnected() && (!done || took >= patience):
		return dispatch.Unavailable(h.failure(err, "no connection"), 0)
	case done:
		return h.interrupted(ctx, fmt.Sprintf("without an answer after %s", took.Round(time.Millisecond)))
	case !sending.isSent():
		return dispatch.Unavailable(h.failure(err, "the connection broke before anything was sent"), 0)
	default:
		return dispatch.Retry(h.failure(err, "the connection broke before an answer came; the job may have run"))
	}
}

// interrupted says what becomes of an attempt whose context ended.
func (h *Handler) interrupted(ctx context.Context, when string) dispatch.Result {
	if isTimeout(ctx) {
		return dispatch.Retry(h.failure(context.Cause(ctx), "timeout, "+when))
	}
	return dispatch.Retry(h.failure(context.Cause(ctx), "stopped "+when))
}

func isTimeout(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(context.Cause(ctx), dispatch.ErrTimeout)
}
