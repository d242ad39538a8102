package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// diagnoseDatabase finds out what an error of the database, or of the way to it, means.
func diagnoseDatabase(err error) *failure {
	if found := diagnoseServer(err); found != nil {
		return found
	}
	var connecting *connectError
	found := &failure{code: exitFailure, err: err}
	if !errors.As(err, &connecting) && !isConnectionLost(err) {
		return found
	}
	found.code = exitDatabase
	_, found.hint = networkReason(err)
	return found
}

// diagnoseServer knows what the server itself answered; nil if it didn't.
func diagnoseServer(err error) *failure {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return nil
	}
	found := &failure{code: exitFailure, err: plainer(err, answer), hint: answer.Hint}
	switch code := answer.Code; {
	case code == "28P01" || code == "28000":
		found.code = exitDatabase
		found.hint = "check the user and the password, and pg_hba.conf on the server; special characters in a URL's password are percent-encoded"
	case code == "3D000":
		found.code = exitDatabase
		found.hint = "create the database (createdb), or correct its name in the URL"
	case code == "42501":
		found.code = exitDatabase
		found.hint = grantHint(err, answer)
	case code == "42P01" || code == "3F000" || code == "42883" || code == "42703":
		found.code = exitSchema
		found.hint = `run "pgbell migrate up", or name the schema that pgbell is installed in with --schema`
	case code == "25006":
		found.code = exitDatabase
		found.hint = "connect to the primary server: this one is read-only"
	case strings.HasPrefix(code, "53"):
		found.code = exitDatabase
		found.hint = "the server has run out of connections, memory or disk space"
	case strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08"):
		found.code = exitDatabase
		found.hint = "the server is starting, stopping or failing over: try again"
	}
	return found
}

// plainer leaves out what pgx puts around a server's answer after it is clear who answers.
func plainer(err error, answer *pgconn.PgError) error {
	message := answer.Message
	if answer.Detail != "" && answer.Code != "PB001" {
		message += ": " + answer.Detail
	}
	var statement *statementError
	var connecting *connectError
	switch {
	case errors.As(err, &statement):
		message = statement.verb + ": " + message
	case errors.As(err, &connecting):
		message = "connect to the database: " + message
	}
	return errors.New(message + " (SQLSTATE " + answer.Code + ")")
}

// grantHint names the role that pgbell ships for the purpose, and the one that lacks it.
func grantHint(err error, answer *pgconn.PgError) string {
	role := "<role>"
	var statement *statementError
	if errors.As(err, &statement) && statement.role != "" {
		role = pgx.Identifier{statement.role}.Sanitize()
	}
	if strings.Contains(answer.Message, "row-level security") {
		return "GRANT pgbell_worker TO " + role + "; pgbell_producer is enough for inserts of pending jobs"
	}
	return "an administrator runs: GRANT pgbell_worker TO " + role + "; for enqueue alone pgbell_producer is enough"
}

// isConnectionLost: the way to the server broke, not the statement.
func isConnectionLost(err error) bool {
	var network net.Error
	var connecting *pgconn.ConnectError
	return errors.As(err, &connecting) || errors.As(err, &network) && !errors.Is(err, context.Canceled)
}

// isPassing: the server, or a pooler, is short of something, stops, or lost its own connection while it answered.
func isPassing(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (strings.HasPrefix(answer.Code, "53") || strings.HasPrefix(answer.Code, "57P") || strings.HasPrefix(answer.Code, "08"))
}

// networkReason sorts what keeps a connection from coming about.
func networkReason(err error) (reason, hint string) {
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return "unknown host", "check the host in the URL, and the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", "check that the server is running and listens on that host and port"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer", "check the host and port, and firewalls in between"
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EACCES):
		return "no socket", "check the folder of the server's socket, or connect by TCP (host=127.0.0.1)"
	case strings.Contains(err.Error(), "refused TLS"), strings.Contains(err.Error(), "tls:"), strings.Contains(err.Error(), "x509:"):
		return "TLS", "check sslmode and sslrootcert in the URL"
	}
	return "no connection", "check the URL, and that the server is up"
}
