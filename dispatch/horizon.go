package dispatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kinds of a Holder.
const (
	HolderSession  = "session"
	HolderStandby  = "standby" // with hot_standby_feedback and no slot
	HolderPrepared = "prepared transaction"
	HolderSlot     = "replication slot"
)

// Holder is something that holds the horizon: vacuum can't remove rows that were deleted or changed after it began.
type Holder struct {
	Kind         string
	PID          int32  // of the session, the standby's WAL sender, or the slot's user; 0 if there is none
	Name         string // application_name, the prepared transaction's gid, or the slot's name
	User         string
	Client       string        // address; empty for a local connection
	State        string        // as pg_stat_activity has it
	Transactions int64         // that have begun since
	Open         time.Duration // of the transaction; 0 if unknown
	Statement    time.Duration // since its last statement began; 0 if unknown
	// Hidden: this role may see no more than that the session is in a transaction: not since when, nor whether that holds
	// anything back.
	Hidden bool

	transaction string // tells two transactions of one session apart
}

// String names the holder in a line, without the text of any query, which may hold what is nobody's business.
func (h Holder) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", h.Kind, h.Name)
	for _, part := range []struct {
		known  bool
		format string
		value  any
	}{
		{h.PID != 0, ", pid %d", h.PID},
		{h.User != "", ", user %q", h.User},
		{h.Client != "", " from %s", h.Client},
		{h.State != "", ", %s", h.State},
		{h.Open > 0, ", transaction open for %s", h.Open.Round(time.Second)},
		{h.Statement > 0, ", last statement begun %s ago", h.Statement.Round(time.Second)},
		{h.Transactions > 0, ", %d transactions ago", h.Transactions},
	} {
		if part.known {
			fmt.Fprintf(&b, part.format, part.value)
		}
	}
	return b.String()
}

// Mend says what to do about it.
func (h Holder) Mend() string {
	switch {
	case h.Kind == HolderPrepared:
		return "COMMIT PREPARED or ROLLBACK PREPARED it, in this database"
	case h.Kind == HolderSlot && h.PID == 0:
		return "start its consumer, or drop it with SELECT pg_drop_replication_slot(...)"
	case h.Kind == HolderSlot, h.Kind == HolderStandby:
		return "end the long query on the standby, or turn hot_standby_feedback off there"
	case h.Hidden:
		return "GRANT pg_read_all_stats to pgbell's role, to see since when"
	case strings.HasPrefix(h.State, "idle in transaction"):
		return fmt.Sprintf("have the application end its transaction, or SELECT pg_terminate_backend(%d); "+
			"idle_in_transaction_session_timeout guards against it", h.PID)
	default:
		return fmt.Sprintf("wait for it, or SELECT pg_cancel_backend(%d); a long report belongs on a replica", h.PID)
	}
}

// HorizonReport says how many dead rows the jobs table has and what may keep vacuum from removing them.
type HorizonReport struct {
	DeadRows, LiveRows int64    // as Postgres counts them
	Holders            []Holder // at most 20, the oldest first, hidden ones of unknown age last
}

// Querier is what Horizon needs of a connection, a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Horizon looks what holds back vacuum on the jobs table of a schema. A role without pg_read_all_stats learns of others' sessions
// only that they are in a transaction.
func Horizon(ctx context.Context, conn Querier, schema string) (HorizonReport, error) {
	var report HorizonReport
	rows, err := conn.Query(ctx, newStatements(schema, 0).table, 0)
	if err != nil {
		return report, fmt.Errorf("read state of jobs: %w", err)
	}
	report, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (r HorizonReport, err error) {
		return r, row.Scan(nil, nil, nil, &r.DeadRows, &r.LiveRows)
	})
	if err != nil {
		return report, fmt.Errorf("read state of jobs: %w", err)
	}
	if rows, err = conn.Query(ctx, horizonSQL); err != nil {
		return report, fmt.Errorf("look for what holds the horizon: %w", err)
	}
	if report.Holders, err = pgx.CollectRows(rows, scanHolder); err != nil {
		return report, fmt.Errorf("look for what holds the horizon: %w", err)
	}
	return report, nil
}

func scanHolder(row pgx.CollectableRow) (h Holder, err error) {
	var behind *int64
	var open, statement *float64
	err = row.Scan(&h.Kind, &h.PID, &h.Name, &h.User, &h.Client, &h.State, &behind, &open, &statement, &h.transaction, &h.Hidden)
	if behind != nil {
		h.Transactions = *behind
	}
	if open != nil {
		h.Open = seconds(*open)
	}
	if statement != nil {
		h.Statement = seconds(*statement)
	}
	return h, err
}
