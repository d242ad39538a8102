package proxy

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"time"
)

// pair is a client's connection and the one to the server that was made for it.
type pair struct {
	proxy          *Proxy
	client, server net.Conn
	over           context.CancelFunc
	// By the proxy's lock:
	hello []byte // the client's startup message
	dead  Direction
}

// loneSync is the Sync message of the Postgres protocol.
var loneSync = []byte{'S', 0, 0, 0, 4}

func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wait.Go(func() { p.connect(ctx, client) })
	}
}

func (p *Proxy) connect(ctx context.Context, client net.Conn) {
	server, err := p.dial(ctx)
	if err != nil {
		_ = client.Close() // as refused as it can still be
		return
	}
	ctx, over := context.WithCancel(ctx)
	c := &pair{proxy: p, client: client, server: server, over: over}
	p.mu.Lock()
	refusing := p.refusing
	c.dead = p.dead
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	if refusing || ctx.Err() != nil {
		c.reset()
	}
	p.wait.Go(func() { c.forward(ctx, ToServer, client, server) })
	c.forward(ctx, ToClient, server, client)
}

// dial connects to the server. While nothing gets there, it is a connection to nowhere.
func (p *Proxy) dial(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	cut, target := p.dead&ToServer != 0, p.target
	p.mu.Unlock()
	if cut {
		nowhere, _ := net.Pipe()
		return nowhere, nil
	}
	return new(net.Dialer).DialContext(ctx, "tcp", target)
}

// held bounds what one direction of a connection holds back, in reads; a read is at most readSize.
const (
	held     = 64
	readSize = 16 << 10
)

type chunk struct {
	due  time.Time
	data []byte
}

// forward reads from one side and has the other written to, until either ends.
func (c *pair) forward(ctx context.Context, d Direction, from, to net.Conn) {
	queue := make(chan chunk, held)
	c.proxy.wait.Go(func() { c.deliver(ctx, d, to, queue) })
	defer close(queue)
	buffer := make([]byte, readSize)
	var due time.Time
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			data := bytes.Clone(buffer[:n])
			// What came before stays before.
			if next := time.Now().Add(c.noticed(d, data)); next.After(due) {
				due = next
			}
			select {
			case queue <- chunk{due, data}:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes what is due, or swallows it, and closes both sides after the last: an end, too, gets lost where it is cut.
func (c *pair) deliver(ctx context.Context, d Direction, to net.Conn, queue <-chan chunk) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := range queue {
		if wait := time.Until(next.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		if c.lost(d, len(next.data)) {
			continue
		}
		if _, err := to.Write(next.data); err != nil {
			break
		}
	}
	if !c.lost(d, 0) {
		c.close()
	}
}

// noticed looks at what was read, and returns for how long it is held back.
func (c *pair) noticed(d Direction, data []byte) time.Duration {
	p := c.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if d == ToServer {
		if c.hello == nil {
			c.hello = data
		}
		if bytes.Equal(data, loneSync) {
			p.syncs[string(c.hello)]++
		}
		if len(p.fatal) > 0 && bytes.Contains(data, p.fatal) {
			c.dead = Both
		}
	}
	if p.jitter <= 0 {
		return p.latency
	}
	return p.latency + rand.N(p.jitter)
}

// lost reports whether a direction is cut, and counts what is swallowed by that.
func (c *pair) lost(d Direction, bytes int) bool {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if c.dead&d == 0 {
		return false
	}
	c.proxy.lost += bytes
	return true
}

func (c *pair) isDead() bool { return c.lost(Both, 0) }

// reset ends a connection by RST instead of FIN.
func (c *pair) reset() {
	for _, side := range []net.Conn{c.client, c.server} {
		if tcp, ok := side.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed already, then
		}
	}
	c.close()
}

func (c *pair) close() {
	c.over()
	_, _ = c.client.Close(), c.server.Close()
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	delete(c.proxy.pairs, c)
}
