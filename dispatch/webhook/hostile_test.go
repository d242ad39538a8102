package webhook_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/webhook"
)

// hostile answers each request with first, and then with rest, with pauses, again and again for as long as it is heard.
func hostile(t *testing.T, first, rest string, pause time.Duration) string {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, err = conn.Write([]byte(first))
			for err == nil && rest != "" {
				_, err = conn.Write([]byte(rest))
				if pause > 0 {
					<-time.After(pause)
				}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return "http://" + server.Addr().String() + "/"
}

// Answers that never end, one way or another, take bounded memory, and no more time than the attempt has.
func TestHostileAnswers(t *testing.T) {
	const ok, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 100 {
		_, _ = zip.Write(make([]byte, 1<<20))
	}
	_ = zip.Close()
	for name, c := range map[string]struct {
		first, rest string
		pause       time.Duration
		want        dispatch.Outcome
	}{
		"headers":          {ok, "X-A: " + strings.Repeat("a", 100) + "\r\n", 0, dispatch.OutcomeRetry},
		"one header":       {ok + "X-A: ", strings.Repeat("a", 1000), 0, dispatch.OutcomeRetry},
		"status line":      {"HTTP/1.1 200 ", strings.Repeat("O", 1000), 0, dispatch.OutcomeRetry},
		"early hints":      {"", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 0, dispatch.OutcomeRetry},
		"slow headers":     {ok, "X-A: a\r\n", 20 * time.Millisecond, dispatch.OutcomeRetry},
		"slow body":        {ok + "Content-Length: 1000000\r\n\r\n", " ", 20 * time.Millisecond, dispatch.OutcomeRetry},
		"slow error":       {"HTTP/1.1 500 x\r\n\r\n", "no ", 20 * time.Millisecond, dispatch.OutcomeRetry},
		"body":             {ok + "\r\n", strings.Repeat("1", 10_000), 0, dispatch.OutcomeDone},
		"error body":       {"HTTP/1.1 500 x\r\n\r\n", strings.Repeat("no ", 1000), 0, dispatch.OutcomeRetry},
		"chunks":           {chunked, "ffff\r\n" + strings.Repeat("1", 0xffff) + "\r\n", 0, dispatch.OutcomeDone},
		"one chunk":        {chunked + "fffffffffffffff\r\n", strings.Repeat("1", 10_000), 0, dispatch.OutcomeDone},
		"chunk extensions": {chunked, "1;" + strings.Repeat("x", 1000) + "\r\n1\r\n", 0, dispatch.OutcomeRetry},
		"trailers":         {chunked + "1\r\n1\r\n0\r\n", "X-A: " + strings.Repeat("a", 100) + "\r\n", 0, dispatch.OutcomeRetry},
		"bomb": {ok + "Content-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(bomb.Len()) + "\r\n\r\n" + bomb.String(), "", 10 * time.Millisecond,
			dispatch.OutcomeDone},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, webhook.Config{URL: hostile(t, c.first, c.rest, c.pause)})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			before := allocated()
			start := time.Now()
			result := h.Run(ctx, newJob())
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if result.Outcome != c.want || len(result.Output) > 0 {
				t.Errorf("outcome %d with %d bytes (%v), want %d", result.Outcome, len(result.Output), result.Err, c.want)
			}
			if took := allocated() - before; took > 16<<20 {
				t.Errorf("it took %d bytes of memory", took)
			}
		})
	}
}

// allocated is how much was ever allocated. Tests beside this one, and its server, have their part in it.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
