package webhook_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

// answering is a server that answers each request with these bytes, whatever they are, and closes the connection.
func answering(t testing.TB) (url string, answer *atomic.Pointer[[]byte]) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer = &atomic.Pointer[[]byte]{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, request.Body)
				_, _ = conn.Write(*answer.Load())
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return "http://" + server.Addr().String() + "/", answer
}

// FuzzAnswer: whatever answers, the attempt ends with an outcome, a delay in bounds, a result that is JSON, and an error that is
// fit for a text column, a log and a terminal.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n[1]", "HTTP/1.1 200 OK\r\nX-Job-Snooze: 60\r\n\r\n",
		"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{", "HTTP/1.1 302 Found\r\nLocation: http://u:p@h/?x\r\n\r\n", "HTTP/1.1 429 \r\nRetry-After: 99\r\n\r\n",
		"HTTP/1.1 503 x\r\nRetry-After: Sun, 01 Mar 2036 12:00:00 GMT\r\nDate: Sun, 01 Mar 2026 11:59:00 GMT\r\n\r\n", "HTTP/1.1 410 Gone\r\n\r\nno more",
		"HTTP/1.1 400 Bad\r\nX-Job-No-Retry: true\r\n\r\n\x1b[31m\xff\x00", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 000 \r\n\r\n", "HTTP/1.1 999 \r\n\r\n", "HTTP/0.9", "", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte(seed))
	}
	url, answer := answering(f)
	held := newHandler(f, webhook.Config{URL: url, AllowHeld: true, MaxResponse: 1000})
	f.Fuzz(func(t *testing.T, raw []byte) {
		answer.Store(&raw)
		result := held.Run(within(t), newJob())
		held.Close() // the next one gets a connection of its own
		wantSane(t, result)
	})
}

// FuzzAnswerHeaders: the same with an answer that is always well-formed.
func FuzzAnswerHeaders(f *testing.F) {
	f.Add(uint16(200), "60", "", "", "", []byte(`{"a":1}`))
	f.Add(uint16(503), "", "120", "", "", []byte("down"))
	f.Add(uint16(500), "31536001", "-1", "TRUE", "http://u:p@h/x?y#z", []byte("\xff\x00\u202e"))
	f.Add(uint16(299), "0", "soon", "false", ":", []byte(" null \n"))
	url, answer := answering(f)
	h := newHandler(f, webhook.Config{URL: url, MaxResponse: 1000})
	f.Fuzz(func(t *testing.T, status uint16, snooze, retryAfter, noRetry, location string, body []byte) {
		response := http.Response{
			StatusCode: 200 + int(status)%400, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(string(body))),
			Header: http.Header{"X-Job-Snooze": {snooze}, "Retry-After": {retryAfter}, "X-Job-No-Retry": {noRetry}, "Location": {location}},
		}
		var raw strings.Builder
		if err := response.Write(&raw); err != nil {
			t.Skip()
		}
		bytes := []byte(raw.String())
		answer.Store(&bytes)
		result := h.Run(within(t), newJob())
		h.Close()
		wantSane(t, result)
		if result.Outcome == dispatch.OutcomeDone && response.StatusCode > 299 || result.Outcome == dispatch.OutcomeHeld {
			t.Fatalf("%d: outcome %d", response.StatusCode, result.Outcome)
		}
	})
}

func wantSane(t *testing.T, result dispatch.Result) {
	t.Helper()
	longest := time.Hour
	switch result.Outcome {
	case dispatch.OutcomeSnooze:
		longest = 365 * 24 * time.Hour
	case dispatch.OutcomeDone, dispatch.OutcomeHeld, dispatch.OutcomeRetry, dispatch.OutcomeFail, dispatch.OutcomeUnavailable:
	default:
		t.Fatalf("outcome %d", result.Outcome)
	}
	if result.Delay < 0 || result.Delay > longest {
		t.Fatalf("delay %s", result.Delay)
	}
	if len(result.Output) > 1000 || len(result.Output) > 0 && (!json.Valid(result.Output) || !utf8.Valid(result.Output)) {
		t.Fatalf("result %q", result.Output)
	}
	failed := result.Outcome == dispatch.OutcomeRetry || result.Outcome == dispatch.OutcomeFail || result.Outcome == dispatch.OutcomeUnavailable
	if failed != (result.Err != nil) {
		t.Fatalf("outcome %d with error %v", result.Outcome, result.Err)
	}
	if !failed {
		return
	}
	text := result.Err.Error()
	if len(text) > 4000 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
		t.Fatalf("error %q", text)
	}
}
