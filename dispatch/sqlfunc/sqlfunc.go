// Package sqlfunc runs jobs by SQL functions, exactly once: the function's effects and the job's completion are committed in
// one transaction.
//
// A job is run as SELECT function(payload), with the payload as jsonb. What the function returns is the job's result: json
// and jsonb as they are, void as none, any other type as a JSON number, boolean or string; of several rows the first.
// An error that it raises is a failed attempt, whose effects are rolled back; with SQLSTATE PB001 it fails the job for good,
// and with PB002 it puts it off without using up the attempt, for the number of seconds that its DETAIL says (60 if it says
// none):
//
//	RAISE EXCEPTION 'no such customer' USING ERRCODE = 'PB001';
//	RAISE EXCEPTION 'too early' USING ERRCODE = 'PB002', DETAIL = '3600';
//
// A function that does not exist, or that the role may not call, or a server that is read-only, is not the job's fault: the attempt is given back and the type's
// breaker opens. Within the function, current_setting('pgbell.job_id') names the job, and likewise pgbell.job_type,
// pgbell.attempt (from 1), pgbell.max_attempts and pgbell.lease. statement_timeout is set to what is left until the attempt's deadline.
package sqlfunc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
)

// SQLSTATEs by which a function chooses what becomes of its job.
const (
	StateFail   = "PB001"
	StateSnooze = "PB002"
)

const (
	defaultSnooze = time.Minute
	rollbackTime  = 5 * time.Second
)

// Config of a Handler.
type Config struct {
	// Function to call, as "name" or "schema.name"; without a schema the connection's search_path finds it. The parts are
	// taken as they are, upper case and all. Required.
	Function string
}

// Handler runs jobs by a SQL function. Each running job takes a connection of the pool for as long as the function runs.
type Handler struct {
	pool *pgxpool.Pool
	call string
}

// New returns a Handler that works through pool. It should not be the pool of the Dispatcher, whose claims and heartbeats
// would have to wait for slow functions.
func New(pool *pgxpool.Pool, config Config) (*Handler, error) {
	var mistakes []error
	if pool == nil {
		mistakes = append(mistakes, errors.New("no pool"))
	}
	parts := strings.Split(config.Function, ".")
	if len(parts) > 2 {
		mistakes = append(mistakes, fmt.Errorf("function %q: want name or schema.name", config.Function))
	}
	for _, part := range parts {
		if part == "" || len(part) > 63 || strings.ContainsAny(part, "\x00()\"") || !utf8.ValidString(part) {
			mistakes = append(mistakes, fmt.Errorf("function %q: want name or schema.name, without quotes, parentheses or arguments", config.Function))
			break
		}
	}
	if len(mistakes) > 0 {
		return nil, fmt.Errorf("configure sqlfunc: %w", errors.Join(mistakes...))
	}
	return &Handler{pool: pool, call: strings.Replace(callSQL, "{function}", pgx.Identifier(parts).Sanitize(), 1)}, nil
}

// Run implements dispatch.Handler.
func (h *Handler) Run(ctx context.Context, job dispatch.Job) dispatch.Result {
	conn, err := h.pool.Acquire(ctx)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return dispatch.Retry(fmt.Errorf("wait for a connection: %w", err))
		}
		// For all its time it may have waited for other functions.
		return dispatch.Unavailable(fmt.Errorf("connect: %w", err), 0)
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return dispatch.Unavailable(fmt.Errorf("begin: %w", err), 0)
	}
	// After a commit this does nothing. The deadline may have passed: the connection is closed then, which rolls back too.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()

	output, err := h.callFunction(ctx, tx, job)
	if err == nil {
		err = job.CompleteTx(ctx, tx, output)
	}
	if err != nil {
		if isReadOnly(err) {
			h.pool.Reset() // the other connections lead to the same server, which was demoted
		}
		return outcome(err)
	}
	if err := tx.Commit(ctx); err != nil {
		// It may have been committed all the same: then the job is completed, and the lease that this retry comes with is stale.
		return dispatch.Retry(fmt.Errorf("commit: %w", err))
	}
	return dispatch.Settled()
}

func (h *Handler) callFunction(ctx context.Context, tx pgx.Tx, job dispatch.Job) (json.RawMessage, error) {
	left := max(time.Until(job.Deadline).Milliseconds(), 1)
	_, err := tx.Exec(ctx, settingsSQL, strconv.FormatInt(left, 10), job.ID, job.Type, strconv.Itoa(job.Attempt), strconv.Itoa(job.MaxAttempts), job.Lease)
	if err != nil {
		return nil, fmt.Errorf("set up transaction: %w", err)
	}
	rows, err := tx.Query(ctx, h.call, pgx.QueryResultFormats{pgx.TextFormatCode}, string(job.Payload))
	if err != nil {
		return nil, fmt.Errorf("call function: %w", err)
	}
	defer rows.Close()
	var output json.RawMessage
	if rows.Next() {
		output = asJSON(rows.FieldDescriptions()[0].DataTypeOID, rows.RawValues()[0])
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("call function: %w", err)
	}
	return output, nil
}

const voidOID = 2278

// asJSON turns a value in Postgres's text form into JSON.
func asJSON(oid uint32, text []byte) json.RawMessage {
	switch {
	case text == nil || oid == voidOID:
		return nil
	case oid == pgtype.BoolOID:
		return json.RawMessage(strconv.FormatBool(string(text) == "t"))
	case oid == pgtype.JSONOID || oid == pgtype.JSONBOID,
		(oid == pgtype.Int2OID || oid == pgtype.Int4OID || oid == pgtype.Int8OID || oid == pgtype.Float4OID || oid == pgtype.Float8OID ||
			oid == pgtype.NumericOID) && json.Valid(text):
		return append(json.RawMessage(nil), text...)
	default:
		quoted, err := json.Marshal(string(text))
		if err != nil {
			return nil // a string always can be
		}
		return quoted
	}
}

const readOnlyTransaction = "25006"

func isReadOnly(err error) bool {
	var raised *pgconn.PgError
	return errors.As(err, &raised) && raised.Code == readOnlyTransaction
}

// outcome says what an error of the function means for its job.
func outcome(err error) dispatch.Result {
	var raised *pgconn.PgError
	if !errors.As(err, &raised) {
		return dispatch.Retry(err)
	}
	switch raised.Code {
	case StateFail:
		return dispatch.Fail(errors.New(raised.Message))
	case StateSnooze:
		delay := defaultSnooze
		if seconds, err := strconv.ParseFloat(strings.TrimSpace(raised.Detail), 64); err == nil && seconds >= 0 && seconds < 1e9 {
			delay = time.Duration(seconds * float64(time.Second))
		}
		return dispatch.Snooze(delay)
	case "42883", "42501", "3F000", readOnlyTransaction: // undefined_function, insufficient_privilege, invalid_schema_name
		return dispatch.Unavailable(err, 0)
	case "57014": // query_canceled: by statement_timeout, at the deadline
		return dispatch.Retry(fmt.Errorf("%w: %w", dispatch.ErrTimeout, err))
	}
	return dispatch.Retry(err)
}
