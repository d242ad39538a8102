package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgbell/pgbell/internal/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server echoes, and counts what it has heard.
type server struct {
	net.Listener
	wait sync.WaitGroup

	mu    sync.Mutex
	heard bytes.Buffer
}

func startServer(t *testing.T) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: listener}
	s.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.echo(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		s.wait.Wait()
	})
	return s
}

func (s *server) echo(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, 1<<10)
	for {
		n, err := conn.Read(buffer)
		s.mu.Lock()
		s.heard.Write(buffer[:n])
		s.mu.Unlock()
		if _, writeErr := conn.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

func (s *server) hasHeard(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Contains(s.heard.Bytes(), []byte(text))
}

// start returns a server, and a proxy in front of it that ends first.
func start(t *testing.T) (*server, *proxy.Proxy) {
	t.Helper()
	s := startServer(t)
	p, err := proxy.Start(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, p
}

func dial(t *testing.T, p *proxy.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a text and waits for its echo for so long.
func ask(conn net.Conn, text string, patience time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	answer := make([]byte, len(text))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != text {
		return errors.New("another answer: " + string(answer))
	}
	return nil
}

const (
	patience = 10 * time.Second
	silence  = 100 * time.Millisecond
)

func mustAsk(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := ask(conn, text, patience); err != nil {
		t.Fatalf("ask: %v", err)
	}
}

func mustHang(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := ask(conn, text, silence); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Errorf("want silence: %v", err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestCutLosesWhatIsSentAndClosesNothing(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		name   string
		cut    proxy.Direction
		arrive bool
	}{{"both", proxy.Both, false}, {"to the server", proxy.ToServer, false}, {"to the client", proxy.ToClient, true}} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s, p := start(t)
			conn := dial(t, p)
			mustAsk(t, conn, "before")
			p.Cut(one.cut)
			mustHang(t, conn, "lost")
			next := dial(t, p)
			mustHang(t, next, "new")
			if p.Swallowed() == 0 {
				t.Error("nothing was swallowed")
			}
			p.Mend()
			mustAsk(t, dial(t, p), "after")
			mustHang(t, conn, "dead")
			p.Heal()
			if err := ask(conn, "closed", patience); err == nil || isTimeout(err) {
				t.Errorf("want a closed connection: %v", err)
			}
			if one.arrive != s.hasHeard("lost") || one.arrive != s.hasHeard("new") {
				t.Errorf("heard: %s", s.heard.String())
			}
		})
	}
}

func TestDelayHoldsBackInOrder(t *testing.T) {
	t.Parallel()
	_, p := start(t)
	conn := dial(t, p)
	const latency = 30 * time.Millisecond
	p.Delay(latency, 20*time.Millisecond)
	began := time.Now()
	for range 5 {
		mustAsk(t, conn, "one two three")
	}
	if took := time.Since(began); took < 10*latency {
		t.Errorf("five round trips took %s", took)
	}
	p.Delay(0, 0)
	mustAsk(t, conn, "four")
}

// What was sent before an end arrives before it.
func TestEndComesAfterWhatWasSent(t *testing.T) {
	t.Parallel()
	s, p := start(t)
	p.Delay(50*time.Millisecond, 0)
	conn := dial(t, p)
	if _, err := io.WriteString(conn, "last words"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it arrives", func() bool { return s.hasHeard("last words") })
}

func TestMemoryIsBoundedWhileNobodyReads(t *testing.T) {
	t.Parallel()
	_, p := start(t)
	p.Delay(time.Hour, 0)
	conn := dial(t, p)
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	sent, block := 0, make([]byte, 1<<20)
	for {
		n, err := conn.Write(block)
		if sent += n; err != nil {
			break
		}
		if sent > 64<<20 {
			t.Fatalf("%d bytes were taken", sent)
		}
	}
}

func TestRefuseAndReset(t *testing.T) {
	t.Parallel()
	_, p := start(t)
	conn := dial(t, p)
	mustAsk(t, conn, "before")
	p.Reset()
	if err := ask(conn, "reset", patience); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("want a reset: %v", err)
	}
	p.Refuse()
	if refused, err := net.Dial("tcp", p.Addr()); err == nil { // or it is reset as soon as that
		if err := ask(refused, "refused", patience); err == nil || isTimeout(err) {
			t.Errorf("want a refusal: %v", err)
		}
		_ = refused.Close()
	}
	p.Mend()
	mustAsk(t, dial(t, p), "after")
}

func TestCutOnlyAndCutAt(t *testing.T) {
	t.Parallel()
	_, p := start(t)
	one, other := dial(t, p), dial(t, p)
	mustAsk(t, one, "name\x00one\x00")
	mustAsk(t, other, "name\x00other\x00")
	p.CutOnly("one")
	mustHang(t, one, "lost")
	mustAsk(t, other, "S\x00\x00\x00\x04")
	if n := p.Syncs("other"); n != 1 {
		t.Errorf("%d Syncs", n)
	}
	p.CutAt("fatal")
	mustAsk(t, other, "harmless")
	mustHang(t, other, "a fatal word")
	p.CutAt("")
	mustAsk(t, dial(t, p), "a fatal word")
}
