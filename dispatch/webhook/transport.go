package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout covers name lookup, connection and TLS handshake each.
	dialTimeout = 5 * time.Second

	// idleTimeout lies below that of all common servers (gunicorn 2 s; Node.js, Apache and uvicorn 5 s), so that it is
	// hardly ever they who close a connection that a request is just being sent on.
	idleTimeout = time.Second

	// maxHeader bounds the bytes of an answer's headers, which net/http holds in memory.
	maxHeader = 64 << 10
)

func newTransport(s *settings) *http.Transport {
	secure := &tls.Config{}
	if s.config.TLS != nil {
		secure = s.config.TLS.Clone()
	}
	secure.NextProtos = []string{"http/1.1"}
	if secure.ClientSessionCache == nil {
		secure.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	plainDialer := &net.Dialer{Timeout: dialTimeout}
	secureDialer := &tls.Dialer{NetDialer: plainDialer, Config: secure}

	// HTTP/2 alone would let one connection carry many requests, and repeats some by itself.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  discreet(s.config.Proxy),
		DialContext:            counted(plainDialer.DialContext),
		DialTLSContext:         counted(secureDialer.DialContext),
		TLSClientConfig:        secure,
		TLSHandshakeTimeout:    dialTimeout,
		Protocols:              &protocols,
		MaxIdleConns:           s.config.MaxIdleConns,
		MaxIdleConnsPerHost:    s.config.MaxIdleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		// A small answer can't blow up to a big one.
		DisableCompression: true,
	}
}

// discreet keeps the text of an error from next to itself: it may quote a proxy's URL with its password.
func discreet(next func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(request *http.Request) (*url.URL, error) {
		proxy, err := next(request)
		if err != nil {
			return nil, errors.New("the proxy's address, from HTTP_PROXY or HTTPS_PROXY, is not a URL")
		}
		return proxy, nil
	}
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

func counted(next dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn}, nil
	}
}

// countedConn knows how many bytes were sent over it.
type countedConn struct {
	net.Conn
	sent atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// sending is how far a request has got.
type sending struct {
	conn   *countedConn // nil as long as there is no connection
	before int64        // bytes sent over conn for others
	reused bool         // conn had served other requests
}

func (s *sending) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		// Behind a proxy, net/http itself speaks TLS over our connection. Its closing message is counted too then, so
		// that now and then what was not sent seems to be: the safe side.
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		if counted, ok := conn.(*countedConn); ok {
			s.conn, s.before, s.reused = counted, counted.sent.Load(), info.Reused
		}
	}})
}

func (s *sending) isConnected() bool { return s.conn != nil }

func (s *sending) isSent() bool { return s.conn != nil && s.conn.sent.Load() > s.before }

// isStale reports whether the request met a kept connection that was closed, and didn't get out at all.
func (s *sending) isStale() bool { return s.reused && !s.isSent() }
