package listener

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	maxConnectTime = 10 * time.Second
	farewellTime   = time.Second
)

// link is a connection that can be cut from any goroutine, and that takes what pgx starts behind the scenes with it.
type link struct {
	conn *pgx.Conn

	cancelDials context.CancelFunc

	listens atomic.Bool   // LISTEN has returned
	reads   atomic.Uint64 // that brought something

	mu      sync.Mutex
	sockets []net.Conn
	isCut   bool
	why     error // it was given up
}

// connect makes a fresh connection. Where its settings are refused, as poolers do, it asks for one without.
func (l *Listener) connect(ctx context.Context, role string) (*link, error) {
	connection, err := l.dial(ctx, role, true)
	if refusesSettings(err) {
		connection, err = l.dial(ctx, role, false)
	}
	return connection, err
}

func (l *Listener) dial(ctx context.Context, role string, withSettings bool) (*link, error) {
	config := l.config.ConnConfig.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	if config.ConnectTimeout <= 0 || config.ConnectTimeout > maxConnectTime {
		config.ConnectTimeout = maxConnectTime
	}
	config.RuntimeParams["application_name"] = l.config.ApplicationName + " " + role
	if withSettings {
		maps.Copy(config.RuntimeParams, settings(l.config.EchoTimeout))
	}
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	connection := &link{cancelDials: cancel}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(lifetime, cancel)()
		socket, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return connection.keep(socket)
	}
	var err error
	if connection.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		connection.cut()
		return nil, err
	}
	return connection, nil
}

// settings of both connections. The keepalives find a dead peer in 14 s, within the default lease time: until then the
// server holds the peer's locks.
func settings(patience time.Duration) map[string]string {
	limit := strconv.FormatInt(max(patience.Milliseconds(), 1), 10)
	return map[string]string{
		"idle_session_timeout":    "0",
		"tcp_keepalives_idle":     "5",
		"tcp_keepalives_interval": "3",
		"tcp_keepalives_count":    "3",
		"tcp_user_timeout":        "14s",
		"statement_timeout":       limit,
		"lock_timeout":            limit,
	}
}

// refusesSettings: PgBouncer says protocol_violation, a server that doesn't know a setting undefined_object.
func refusesSettings(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && (refusal.Code == "08P01" || refusal.Code == "42704")
}

// saysReadOnly reports what the server last said of itself, with any answer: that it is a standby, or a primary that was told to
// refuse writes.
func (c *link) saysReadOnly() bool {
	conn := c.conn.PgConn()
	return conn.ParameterStatus("in_hot_standby") == "on" || conn.ParameterStatus("default_transaction_read_only") == "on"
}

func (c *link) keep(socket net.Conn) (net.Conn, error) {
	if tcp, isTCP := socket.(*net.TCPConn); isTCP {
		// A best effort: the ping notices what these would.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		_ = socket.Close()
		return nil, net.ErrClosed
	}
	c.sockets = append(c.sockets, socket)
	return heededSocket{socket, &c.reads}, nil
}

// cut closes the connection without a word. Whoever waits on it gets an error.
func (c *link) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
	c.cancelDials()
	for _, socket := range c.sockets {
		_ = socket.Close()
	}
	c.sockets = nil
}

// giveUp cuts the connection for a reason that its reader is to tell.
func (c *link) giveUp(why error) {
	c.mu.Lock()
	if !c.isCut {
		c.why = why
	}
	c.mu.Unlock()
	c.cut()
}

// givenUp returns why the connection was given up, nil if it wasn't.
func (c *link) givenUp() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// wasCut reports whether the connection's end was this process's own doing.
func (c *link) wasCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isCut
}

// discard ends the connection, in good manners if it still stands, and waits until nothing of it runs.
func (c *link) discard(ctx context.Context) {
	if !c.wasCut() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
		// It is gone either way.
		_ = c.conn.Close(ctx)
		cancel()
	}
	c.cut()
	_ = c.conn.Close(ctx)
	<-c.conn.PgConn().CleanupDone()
}
