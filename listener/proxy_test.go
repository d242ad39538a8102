package listener_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy forwards TCP connections to a server, until some are frozen: what is sent over them is swallowed then, and nothing
// is closed, as when a network cable is pulled.
type proxy struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	dead  bool // for new ones
	lost  int  // bytes swallowed
	fatal []byte
	pairs []*pair
}

type pair struct {
	client, server net.Conn
	hello          []byte // the client's startup message
	syncs          int    // that the client sent alone
	frozen         bool
}

// startProxy returns a proxy in front of a database, and the database's URL through it.
func startProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()
	parsed, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: socket, target: parsed.Host}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		_ = socket.Close()
		p.mu.Lock()
		p.ended = true
		for _, pair := range p.pairs {
			pair.close()
		}
		p.mu.Unlock()
		p.wait.Wait()
	})
	parsed.Host = socket.Addr().String()
	return p, parsed.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		next := &pair{client: client, server: server}
		p.mu.Lock()
		if p.ended {
			next.close()
		}
		p.pairs = append(p.pairs, next)
		next.frozen = p.dead
		p.mu.Unlock()
		p.wait.Go(func() { p.forward(next, next.server, next.client) })
		p.wait.Go(func() { p.forward(next, next.client, next.server) })
	}
}

func (p *proxy) forward(pair *pair, to, from net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		if from == pair.client && pair.hello == nil {
			pair.hello = bytes.Clone(buffer[:n])
		}
		if from == pair.client && bytes.Equal(buffer[:n], []byte{'S', 0, 0, 0, 4}) {
			pair.syncs++
		}
		if from == pair.client && len(p.fatal) > 0 && bytes.Contains(buffer[:n], p.fatal) {
			pair.frozen = true
		}
		frozen := pair.frozen
		if frozen {
			p.lost += n
		}
		p.mu.Unlock()
		if frozen {
			return
		}
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			pair.close()
			return
		}
	}
}

func (c *pair) close() { _, _ = c.client.Close(), c.server.Close() }

// freeze all connections, and those to come.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for _, pair := range p.pairs {
		pair.frozen = true
	}
}

// freezeOnly those that stand and call themselves by an application_name.
func (p *proxy) freezeOnly(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pair := range p.pairs {
		pair.frozen = pair.frozen || bytes.Contains(pair.hello, append([]byte(name), 0))
	}
}

// pings returns how often those that call themselves by an application_name have sent a Sync alone.
func (p *proxy) pings(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := 0
	for _, pair := range p.pairs {
		if bytes.Contains(pair.hello, append([]byte(name), 0)) {
			sum += pair.syncs
		}
	}
	return sum
}

// freezeAt freezes each connection whose client sends the text, from then on. An empty text means none.
func (p *proxy) freezeAt(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fatal = []byte(text)
}

// thaw lets new connections through; the frozen ones stay so.
func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = false
}

// swallowed returns how many bytes were lost in frozen connections.
func (p *proxy) swallowed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}
