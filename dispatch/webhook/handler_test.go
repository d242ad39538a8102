package webhook_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// rawServer speaks what it likes: handle gets each connection, and the number that it has, from 1. The connection is
// closed after it.
func rawServer(t *testing.T, handle func(number int, conn net.Conn)) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for number := 1; ; number++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				handle(number, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	return listener.Addr().String()
}

// readRequest returns the id of the next request, read whole.
func readRequest(buffered *bufio.Reader) (string, error) {
	request, err := http.ReadRequest(buffered)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return "", err
	}
	return request.Header.Get("Webhook-Id"), nil
}

// TestOneAttemptIsOneSend has a server that answers the first request of a connection, and breaks the connection in the
// middle of the second: net/http on its own sends such a request again, since it has an Idempotency-Key.
func TestOneAttemptIsOneSend(t *testing.T) {
	t.Parallel()
	for name, breakUp := range map[string]func(net.Conn){
		"closed":          func(net.Conn) {},
		"reset":           func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) },
		"half an answer":  func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 20") },
		"half the header": func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le") },
		"half the body":   func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}") },
		"no HTTP":         func(conn net.Conn) { _, _ = io.WriteString(conn, "\x1b[31m-ERR unknown\x00 command\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			sends := map[string]int{}
			address := rawServer(t, func(_ int, conn net.Conn) {
				buffered := bufio.NewReader(conn)
				for request := 1; ; request++ {
					id, err := readRequest(buffered)
					if err != nil {
						return
					}
					mu.Lock()
					sends[id]++
					mu.Unlock()
					if request == 2 {
						breakUp(conn)
						return
					}
					_, _ = io.WriteString(conn, okAnswer)
				}
			})
			h := newHandler(t, webhook.Config{URL: "http://" + address})
			job := newJob()
			for attempt := 1; attempt <= 6; attempt++ {
				job.ID = fmt.Sprint("job-", attempt)
				result := h.Run(within(t), job)
				if attempt%2 == 1 {
					wantOutcome(t, result, dispatch.OutcomeDone)
				} else {
					wantOutcome(t, result, dispatch.OutcomeRetry, "webhook http://"+address, "bro")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for attempt := 1; attempt <= 6; attempt++ {
				if id := fmt.Sprint("job-", attempt); sends[id] != 1 {
					t.Errorf("%s was sent %d times", id, sends[id])
				}
			}
		})
	}
}

// brokenPipe is a connection that accepts the first writes, and none after them.
type brokenPipe struct {
	net.Conn
	writes atomic.Int32
}

func (c *brokenPipe) Write(p []byte) (int, error) {
	if c.writes.Add(-1) < 0 {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// TestNothingSent has connections that break before a byte of the request gets out. On one that was kept, that is the
// pool's fault, and the request goes over another; on a new one the endpoint is unavailable.
func TestNothingSent(t *testing.T) {
	t.Parallel()
	var requests, conns atomic.Int32
	server := serve(t, func(http.ResponseWriter, *http.Request) { requests.Add(1) })
	h := newHandler(t, webhook.Config{URL: server.URL})
	writes := int32(1)
	h.WrapConns(func(conn net.Conn) net.Conn {
		conns.Add(1)
		broken := &brokenPipe{Conn: conn}
		broken.writes.Store(writes)
		return broken
	})
	for attempt := int32(1); attempt <= 3; attempt++ {
		wantOutcome(t, h.Run(within(t), newJob()), dispatch.OutcomeDone)
		if requests.Load() != attempt || conns.Load() != attempt {
			t.Fatalf("%d requests over %d connections after attempt %d", requests.Load(), conns.Load(), attempt)
		}
	}
	writes = 0
	wantOutcome(t, h.Run(within(t), newJob()), dispatch.OutcomeUnavailable, "before anything was sent")
	if requests.Load() != 3 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	_ = listener.Close()

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for name, url := range map[string]string{
		"refused":               "http://bell:hunter2@" + closed + "/jobs?token=hunter2",
		"no such host":          "http://no..such..host/jobs?token=hunter2",
		"untrusted certificate": strings.Replace(secure.URL, "//", "//bell:hunter2@", 1),
		"no TLS there":          "https" + strings.TrimPrefix(serve(t, func(http.ResponseWriter, *http.Request) {}).URL, "http"),
	} {
		result := newHandler(t, webhook.Config{URL: url}).Run(within(t), newJob())
		wantOutcome(t, result, dispatch.OutcomeUnavailable, "no connection")
		if result.Delay != 0 || strings.Contains(result.Err.Error(), "hunter2") {
			t.Errorf("%s: delay %s, error %v", name, result.Delay, result.Err)
		}
	}
}

// silent is the address of a server that accepts connections, and says nothing.
func silent(t *testing.T) string {
	return rawServer(t, func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
}

// TestNoConnectionByTheDeadline has a TLS handshake that is never answered.
func TestNoConnectionByTheDeadline(t *testing.T) {
	t.Parallel()
	h := newHandler(t, webhook.Config{URL: "https://" + silent(t)})
	for timeout, want := range map[time.Duration]dispatch.Outcome{
		50 * time.Millisecond:   dispatch.OutcomeRetry, // too short a time to blame the endpoint
		1100 * time.Millisecond: dispatch.OutcomeUnavailable,
		time.Minute:             dispatch.OutcomeUnavailable, // long before that
	} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			start := time.Now()
			wantOutcome(t, h.Run(ctx, newJob()), want)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestNoAnswerByTheDeadline(t *testing.T) {
	t.Parallel()
	slow := func(w http.ResponseWriter, r *http.Request, first string) {
		_, _ = io.Copy(io.Discard, r.Body)
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for text := first; ; text = " " {
			_, _ = io.WriteString(w, text)
			w.(http.Flusher).Flush()
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			}
		}
	}
	dripping := serve(t, func(w http.ResponseWriter, r *http.Request) { slow(w, r, "{") })
	refusing := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		slow(w, r, "no such customer")
	})
	headers := rawServer(t, func(_ int, conn net.Conn) {
		_, _ = readRequest(bufio.NewReader(conn))
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for text := "HTTP/1.1 200 OK\r\nX-A: "; ; text = "a" {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
			<-ticker.C
		}
	})
	switched := rawServer(t, func(_ int, conn net.Conn) {
		_, _ = readRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	for name, test := range map[string]struct {
		url  string
		want dispatch.Outcome
		part string
	}{
		"speaks another protocol": {"http://" + switched, dispatch.OutcomeRetry, "answered 101 Switching Protocols"},
		"never answers":           {"http://" + silent(t), dispatch.OutcomeRetry, "timeout, without an answer after 1"},
		"drips its body":          {dripping.URL, dispatch.OutcomeRetry, "timeout, in the middle of the answer"},
		"drips its headers":       {"http://" + headers, dispatch.OutcomeRetry, "timeout, without an answer after 1"},
		"drips after a refusal":   {refusing.URL, dispatch.OutcomeFail, "answered 422 Unprocessable Entity: no such customer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, webhook.Config{URL: test.url})
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			wantOutcome(t, h.Run(ctx, newJob()), test.want, test.part)
			if name == "speaks another protocol" && ctx.Err() != nil {
				t.Error("waited for the deadline")
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	h := newHandler(t, webhook.Config{URL: server.URL})
	for _, test := range []struct {
		cause error
		part  string
	}{
		{dispatch.ErrTimeout, "timeout, without an answer after"},
		{dispatch.ErrCancelled, "stopped before the answer came: " + dispatch.ErrCancelled.Error()},
		{errors.New("power cut\n"), "stopped before the answer came: power cut"},
	} {
		ctx, cancel := context.WithCancelCause(within(t))
		results := make(chan dispatch.Result, 1)
		go func() { results <- h.Run(ctx, newJob()) }()
		<-arrived
		cancel(test.cause)
		result := <-results
		wantOutcome(t, result, dispatch.OutcomeRetry, test.part)
		if !errors.Is(result.Err, test.cause) {
			t.Errorf("error %v is not %v", result.Err, test.cause)
		}
	}

	ctx, cancel := context.WithCancelCause(within(t))
	cancel(dispatch.ErrShutdown)
	wantOutcome(t, h.Run(ctx, newJob()), dispatch.OutcomeRetry, "stopped before it was sent")
}

// TestEndlessAnswer has servers that never stop, and looks at how much they got rid of.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		begin, again string
		want         dispatch.Outcome
	}{
		"result":       {"HTTP/1.1 200 OK\r\n\r\n", "[[[[[[[[[[[[[[[[", dispatch.OutcomeDone},
		"chunked":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10\r\n0123456789abcdef\r\n", dispatch.OutcomeDone},
		"said big":     {"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", "0000000000000000", dispatch.OutcomeDone},
		"error":        {"HTTP/1.1 500 No\r\n\r\n", "out of memory\n", dispatch.OutcomeRetry},
		"unavailable":  {"HTTP/1.1 503 No\r\n\r\n", "out of memory\n", dispatch.OutcomeUnavailable},
		"held":         {"HTTP/1.1 202 Accepted\r\n\r\n", "................", dispatch.OutcomeHeld},
		"snooze":       {"HTTP/1.1 200 OK\r\nX-Job-Snooze: 5\r\n\r\n", "................", dispatch.OutcomeSnooze},
		"headers":      {"HTTP/1.1 200 OK\r\n", "X-Again: 0123456789\r\n", dispatch.OutcomeRetry},
		"one header":   {"HTTP/1.1 200 OK\r\nX-A: ", "aaaaaaaaaaaaaaaaaaaa", dispatch.OutcomeRetry},
		"early hints":  {"", "HTTP/1.1 103 Early Hints\r\nX-A: aaaaaaaa\r\n\r\n", dispatch.OutcomeRetry},
		"switched":     {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "....", dispatch.OutcomeRetry},
		"chunk header": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "00000000", dispatch.OutcomeRetry},
		"trailers":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", "X-A: aaaaaaaaaaaaaaaaaaaaaa\r\n", dispatch.OutcomeRetry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			written := make(chan int, 1)
			address := rawServer(t, func(_ int, conn net.Conn) {
				_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
				_, _ = readRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, test.begin)
				total, again := 0, []byte(strings.Repeat(test.again, 500))
				for {
					n, err := conn.Write(again)
					if total += n; err != nil {
						written <- total
						return
					}
				}
			})
			h := newHandler(t, webhook.Config{URL: "http://" + address, AllowHeld: true})
			result := h.Run(within(t), newJob())
			wantOutcome(t, result, test.want)
			if len(result.Output) > 0 || result.Err != nil && len(result.Err.Error()) > 2500 {
				t.Errorf("output of %d bytes, error %v", len(result.Output), result.Err)
			}
			// What is beyond the 1 MiB that are read lies in the buffers of the two sockets.
			if total := <-written; total > 16<<20 {
				t.Errorf("the server got rid of %d bytes", total)
			}
		})
	}
}

// TestEarlyAnswer has a server that refuses a big payload without reading it.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "at most 1 MB", http.StatusRequestEntityTooLarge)
	})
	h := newHandler(t, webhook.Config{URL: server.URL, Secrets: []string{secret}})
	job := newJob()
	job.Payload = []byte(`"` + strings.Repeat("x", 16<<20) + `"`)
	for range 5 {
		wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeFail, "413 Request Entity Too Large")
	}
}

// TestBigPayload sends what a Dispatcher lets through.
func TestBigPayload(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, `{"bytes":%d,"whole":%t}`, n, err == nil && n == r.ContentLength)
	})
	job := newJob()
	job.Payload = []byte(`"` + strings.Repeat("x", 4<<20) + `"`)
	result := newHandler(t, webhook.Config{URL: server.URL}).Run(within(t), job)
	wantOutcome(t, result, dispatch.OutcomeDone)
	if !strings.Contains(string(result.Output), `"whole":true`) {
		t.Errorf("output %s", result.Output)
	}
}

// TestIdleConnectionIsClosed sees the handler give up a connection before any server would.
func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1)
	address := rawServer(t, func(_ int, conn net.Conn) {
		buffered := bufio.NewReader(conn)
		_, _ = readRequest(buffered)
		_, _ = io.WriteString(conn, okAnswer)
		_, _ = buffered.ReadByte()
		closed <- struct{}{}
	})
	h, err := webhook.New(webhook.Config{URL: "http://" + address})
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	wantOutcome(t, h.Run(ctx, newJob()), dispatch.OutcomeDone)
	select {
	case <-closed:
	case <-ctx.Done():
		t.Error("the connection is still open")
	}
}

// TestAnswerHeaders bounds what net/http holds in memory for the headers of an answer.
func TestAnswerHeaders(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.Header.Get("X-Job-Type"))
		w.Header().Set("X-Big", strings.Repeat("a", size))
	})
	h := newHandler(t, webhook.Config{URL: server.URL})
	job := newJob()
	job.Type = strconv.Itoa(60 << 10)
	wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeDone)
	job.Type = strconv.Itoa(70 << 10)
	wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeRetry, "headers exceeded")
}

// TestSecure speaks HTTPS with a private authority, directly and through a proxy: HTTP/1.1 over one kept connection.
func TestSecure(t *testing.T) {
	t.Parallel()
	type seen struct {
		version int
		remote  string
	}
	requests := make(chan seen, 4)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- seen{r.ProtoMajor, r.RemoteAddr}
		if r.Header.Get("X-Job-Type") == "break" {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.Close()
			}
			return
		}
		_, _ = io.WriteString(w, "true")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())

	var tunnels atomic.Int32
	proxy := rawServer(t, func(_ int, conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || request.Method != http.MethodConnect {
			return
		}
		tunnels.Add(1)
		upstream, err := new(net.Dialer).DialContext(t.Context(), "tcp", request.Host)
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		var copying sync.WaitGroup
		copying.Go(func() {
			_, _ = io.Copy(upstream, conn)
			_ = upstream.Close()
		})
		_, _ = io.Copy(conn, upstream)
		_ = conn.Close()
		copying.Wait()
	})
	for name, via := range map[string]func(*http.Request) (*url.URL, error){
		"direct": nil,
		"proxy":  http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}),
	} {
		h := newHandler(t, webhook.Config{URL: server.URL, TLS: &tls.Config{RootCAs: authorities}, Proxy: via})
		var remotes [2]string
		for i := range remotes {
			result := h.Run(within(t), newJob())
			wantOutcome(t, result, dispatch.OutcomeDone)
			got := <-requests
			if got.version != 1 || string(result.Output) != "true" {
				t.Errorf("%s: HTTP/%d, output %q", name, got.version, result.Output)
			}
			remotes[i] = got.remote
		}
		if remotes[0] != remotes[1] {
			t.Errorf("%s: the connection was not kept", name)
		}
		job := newJob()
		job.Type = "break"
		wantOutcome(t, h.Run(within(t), job), dispatch.OutcomeRetry, "the job may have run")
		if got := <-requests; got.remote != remotes[0] {
			t.Errorf("%s: the connection was not kept", name)
		}
		h.Close()
	}
	if tunnels.Load() != 1 {
		t.Errorf("%d tunnels", tunnels.Load())
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	server := serve(t, func(http.ResponseWriter, *http.Request) {})
	var forwarded atomic.Int32
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		forwarded.Add(1)
		forward := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
		forward.ServeHTTP(w, r)
	})
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, webhook.Config{URL: server.URL, Proxy: http.ProxyURL(address)})
	wantOutcome(t, h.Run(within(t), newJob()), dispatch.OutcomeDone)
	if forwarded.Load() != 1 {
		t.Errorf("%d requests went through the proxy", forwarded.Load())
	}

	h = newHandler(t, webhook.Config{URL: server.URL, Proxy: func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://bell:hunter2@%zz"`)
	}})
	result := h.Run(within(t), newJob())
	wantOutcome(t, result, dispatch.OutcomeUnavailable, "HTTP_PROXY")
	for err := result.Err; err != nil; err = errors.Unwrap(err) {
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error tells a secret: %v", err)
		}
	}
}
