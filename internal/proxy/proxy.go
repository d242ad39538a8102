// Package proxy is a TCP proxy on loopback that does to its connections what networks do: it loses what is sent in one
// direction or in both while nothing is closed, it delays, resets and refuses. For tests and fault runs.
//
// A connection that was cut stays dead, as what was lost can't come again. Nothing ends its two sides before Heal or Close, so
// a server goes on believing in a client that is gone, as it does in the time before its keepalives fail.
package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// Direction of what is cut.
type Direction int

const (
	ToServer Direction = 1 << iota // what clients send
	ToClient                       // what the server answers
	Both     = ToServer | ToClient
)

// Proxy forwards the connections that are made to it to one server. Its methods may be called by several goroutines at once.
type Proxy struct {
	listener net.Listener
	end      context.CancelFunc
	wait     sync.WaitGroup

	mu       sync.Mutex
	target   string // of new connections
	pairs    map[*pair]struct{}
	dead     Direction // of new connections
	refusing bool
	fatal    []byte
	latency  time.Duration
	jitter   time.Duration
	lost     int            // bytes swallowed
	syncs    map[string]int // lone Syncs of the Postgres protocol, by startup message
}

// Start listens on a free port of 127.0.0.1. target is the server's host and port. The caller must call Close.
func Start(ctx context.Context, target string) (*Proxy, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	p := &Proxy{listener: listener, target: target, end: end, pairs: map[*pair]struct{}{}, syncs: map[string]int{}}
	p.wait.Go(func() { p.accept(lifetime) })
	return p, nil
}

// InFrontOf starts a proxy in front of the database that a URL names, and returns the URL of that database through it.
func InFrontOf(ctx context.Context, databaseURL string) (*Proxy, string, error) {
	parsed, err := url.Parse(databaseURL)
	if err != nil {
		return nil, "", fmt.Errorf("start proxy: %w", err)
	}
	p, err := Start(ctx, parsed.Host)
	if err != nil {
		return nil, "", err
	}
	parsed.Host = p.Addr()
	return p, parsed.String(), nil
}

// Addr is the host and port that the proxy listens on.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends all connections, and returns when nothing of the proxy runs any longer.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.end()
	p.each(func(c *pair) { c.close() })
	p.wait.Wait()
	return err
}

// Lead has new connections made to another server, as a DNS name or a virtual IP that is moved does. Those that stand stay.
func (p *Proxy) Lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut swallows from now on what is sent in a direction, over all connections that stand and those to come.
func (p *Proxy) Cut(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = d
	for c := range p.pairs {
		c.dead |= d
	}
}

// CutOnly cuts those connections that stand and whose startup message has this text as a whole value (an application_name).
func (p *Proxy) CutOnly(value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if bytes.Contains(c.hello, append([]byte(value), 0)) {
			c.dead = Both
		}
	}
}

// CutAt cuts each connection whose client sends the text, from then on. An empty text means none.
func (p *Proxy) CutAt(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fatal = []byte(text)
}

// Mend lets new connections through. Those that were cut stay as they are.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead, p.refusing = 0, false
}

// Heal mends, and resets those that were cut, as the retransmissions of their two sides lead to in the end.
func (p *Proxy) Heal() {
	p.Mend()
	p.each(func(c *pair) {
		if c.isDead() {
			c.reset()
		}
	})
}

// Reset resets all connections.
func (p *Proxy) Reset() { p.each((*pair).reset) }

// Refuse resets all connections, and those to come as soon as they are made, until Mend.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refusing = true
	p.mu.Unlock()
	p.Reset()
}

// Delay holds back from now on what is sent, in each direction, for latency and up to jitter more. The order stays.
func (p *Proxy) Delay(latency, jitter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency, p.jitter = latency, jitter
}

// Swallowed is how many bytes were lost in connections that were cut.
func (p *Proxy) Swallowed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Syncs is how often clients whose startup message has this value have sent a Sync of the Postgres protocol alone.
func (p *Proxy) Syncs(value string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := 0
	for hello, n := range p.syncs {
		if bytes.Contains([]byte(hello), append([]byte(value), 0)) {
			sum += n
		}
	}
	return sum
}

func (p *Proxy) each(do func(*pair)) {
	p.mu.Lock()
	pairs := make([]*pair, 0, len(p.pairs))
	for c := range p.pairs {
		pairs = append(pairs, c)
	}
	p.mu.Unlock()
	for _, c := range pairs {
		do(c)
	}
}
