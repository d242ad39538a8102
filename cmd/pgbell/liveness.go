package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	pingNever  = time.Second     // after so little time without use, as pgxpool has it
	pingAlways = 5 * time.Minute // after so much: a connection may be gone without a word
)

// shouldPing has an idle connection pinged where it looks as if it had ended. pgxpool would ping whenever it was idle for a
// second: a round trip before each job of an idle sidecar, and a transaction for each statement of one.
func shouldPing(_ context.Context, params pgxpool.ShouldPingParams) bool {
	if params.IdleDuration <= pingNever {
		return false
	}
	return params.IdleDuration > pingAlways || !quiet(params.Conn.PgConn().Conn())
}

// quiet reports that nothing waits to be read from a connection: no end, no error, no farewell of the server's. It reads
// nothing and doesn't wait.
func quiet(conn net.Conn) bool {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	socket, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	nothing := false
	err = socket.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		nothing = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && nothing
}
