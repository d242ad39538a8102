package webhook

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/pgbell/pgbell/dispatch"
)

// Prepared returns the headers and the body of a request that is sent at now.
func (h *Handler) Prepared(job dispatch.Job, now time.Time) (http.Header, []byte) {
	body := newBody(job)
	return h.newHeader(job, now, body), body
}

// KeepIdle keeps idle connections for longer than a busy machine takes from one step of a test to the next.
func (h *Handler) KeepIdle(duration time.Duration) { h.transport.IdleConnTimeout = duration }

// WrapConns lets wrap stand between the handler and its connections.
func (h *Handler) WrapConns(wrap func(net.Conn) net.Conn) {
	dialer := &net.Dialer{}
	h.transport.DialContext = counted(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	})
}

var RetryAfter, Clip, ClipTail = retryAfter, clip, clipTail
