package listener

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// reason is a kind of cause of deafness. The log names each at most once per deaf period.
type reason int

const (
	notStarted reason = iota
	connecting
	stopped
	unreachable
	refused
	lost
	noEcho
	pooled
	readOnly
	queueFull
	reasons
)

// cause says why the bell isn't heard, and how to mend it.
type cause struct {
	reason reason
	what   string
	mend   string
	err    error
}

const (
	maxCause      = 500
	mendConnect   = "check that the server is up and that database.listen_url leads to it; it is tried again until it answers"
	mendRefusal   = "correct database.listen_url or what the server allows; it is tried again until it succeeds"
	mendReconnect = "none needed: the connection is made anew"
	mendHalfOpen  = "none needed: the connection is made anew; if it happens again and again, look for a firewall or NAT that forgets " +
		"connections, or a server that hangs"
	mendReadOnly = "lead database.url and database.listen_url to the primary, or name all servers in them with " +
		"target_session_attrs=read-write; it is tried again until the server may be written to"
	mendQueue  = "end the session that LISTENs and has a transaction open; the server's log names its process"
	mendDirect = "set database.listen_url to a direct connection, or to a pooler's session mode"
)

// causeOfConnect sorts what went wrong with getting a connection ready for its work.
func causeOfConnect(role string, err error) cause {
	var between *poolerError
	if errors.As(err, &between) {
		return causeOfSilence(between.given, between.answered)
	}
	if errors.Is(err, pgconn.ErrReadOnlyConnection) {
		return causeOfReadOnly()
	}
	var refusal *pgconn.PgError
	// Class 57 is the operator's intervention: starting up, shutting down. 53300 is too many connections.
	if !errors.As(err, &refusal) || strings.HasPrefix(refusal.Code, "57") || refusal.Code == "53300" {
		return cause{reason: unreachable, what: "no connection to the database for the " + role, mend: mendConnect, err: err}
	}
	switch refusal.Code {
	case "25006": // read_only_sql_transaction: LISTEN on a standby
		return causeOfReadOnly()
	case "54000": // program_limit_exceeded
		return cause{reason: queueFull, what: "the server's queue of notifications is full", mend: mendQueue, err: err}
	}
	return cause{reason: refused, what: "the database refuses the " + role, mend: mendRefusal, err: err}
}

func causeOfReadOnly() cause {
	return cause{reason: readOnly, mend: mendReadOnly, what: "the server is read-only: a standby, or a primary that was demoted"}
}

// causeOfLoss sorts what went wrong with a connection that stood.
func causeOfLoss(role string, err error) cause {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && !strings.HasPrefix(refusal.Code, "57") {
		return causeOfConnect(role, err)
	}
	if errors.Is(err, errNoAnswer) {
		return cause{reason: lost, what: "the connection of the " + role + " is half-open: no answer to a ping", mend: mendHalfOpen}
	}
	return cause{reason: lost, what: "the connection of the " + role + " was lost", mend: mendReconnect, err: err}
}

// causeOfSilence compares the process that the connection was given with the one that answered.
func causeOfSilence(given, answered uint32) cause {
	if given != answered {
		return cause{reason: pooled, mend: mendDirect, what: fmt.Sprintf("a transaction pooler stands in between "+
			"(the connection was given process %d and process %d answers): notifications don't pass through it", given, answered)}
	}
	return cause{reason: noEcho, mend: mendDirect, what: "a notification sent to itself did not come back: a transaction " +
		"pooler stands in between, or the connection is half-open"}
}

// String is one line of bounded length. Errors of pgx name user, database and host, never a password.
func (c cause) String() string {
	text := c.what
	if c.err != nil {
		text += ": " + c.err.Error()
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxCause {
		text = strings.ToValidUTF8(text[:maxCause], "") + "..."
	}
	return text
}
