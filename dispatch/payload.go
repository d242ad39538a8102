package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// payloadReaders read payloads that claims leave out, since they may be big. Few at once: reading them is work for the database and
// takes connections that settles and heartbeats need.
const payloadReaders = 2

// payloadAgain is when a job comes back whose payload could not be read.
const payloadAgain = 5 * time.Second

// errUnread is of attempts that ended before their handler was called: they are given back, for as long as those of a handler that
// can't be reached.
var errUnread = errors.New("payload not read")

// readPayload reads the payload of a job that this process holds, or only its size where it is more than its type takes.
func (d *Dispatcher) readPayload(ctx context.Context, a *attempt) error {
	select {
	case d.payloads <- struct{}{}:
		defer func() { <-d.payloads }()
	case <-ctx.Done():
		return fmt.Errorf("wait to read the payload: %w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	type row struct {
		Payload []byte
		Size    int
	}
	found, err := queryUnder(ctx, d.shared, d.sql.plain, pgx.RowToStructByPos[row], d.sql.payload, a.job.id, a.job.lease, a.lane.MaxPayload)
	if err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	if len(found) == 0 {
		return fmt.Errorf("read payload: %w", ErrStale)
	}
	a.job.Payload, a.job.size = found[0].Payload, found[0].Size
	return nil
}
