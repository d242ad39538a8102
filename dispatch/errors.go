package dispatch

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// What context.Cause tells a handler of why its context is done.
var (
	// ErrTimeout: the attempt's deadline has passed.
	ErrTimeout = errors.New("timed out")
	// ErrCancelled: the job's cancel was asked for.
	ErrCancelled = errors.New("the job was cancelled")
	// ErrLeaseLost: another worker may have the job by now. Nothing that this attempt returns is written.
	ErrLeaseLost = errors.New("the lease was lost")
	// ErrLeaseEnding: the database could not be reached for so long that the lease is about to run out.
	ErrLeaseEnding = errors.New("the database can't be reached and the lease is about to run out")
	// ErrShutdown: the grace period of a shutdown is over. The attempt is given back.
	ErrShutdown = errors.New("shutting down")
)

// ErrStale is returned by CompleteTx when the attempt no longer holds its job.
var ErrStale = errors.New("the job is not held by this lease any more")

// ErrStuck is returned by Run when handlers went on although their contexts were done.
var ErrStuck = errors.New("handlers did not stop when they were told to")

// maxErrorText is how many bytes of an error are stored.
const maxErrorText = 4000

// storable makes a text fit for a text column: valid UTF-8 without NUL, cut at limit bytes.
func storable(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) <= limit {
		return text
	}
	const mark = " [cut]"
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + mark
}

// isLocked reports whether a row, or the table, was locked by another transaction for longer than the statement would wait.
func isLocked(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "55P03"
}

// isUnstorable reports whether the database refused what was to be written, and will again: data exceptions, violated
// constraints and exceeded limits.
func isUnstorable(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || len(refused.Code) < 2 {
		return false
	}
	switch refused.Code[:2] {
	case "22", "23", "54":
		return true
	}
	return false
}
