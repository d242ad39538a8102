package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Job is one attempt of a job, as a Handler gets it. It is a copy: changing it changes nothing in the database.
type Job struct {
	// ID is the job's uuid, the same at every attempt: the idempotency key.
	ID string
	// Type is the job's type, 1 to 200 characters.
	Type string
	// Payload is the job's payload, valid JSON, at most the type's MaxPayload bytes.
	Payload json.RawMessage
	// Priority: jobs with a higher one are claimed first.
	Priority int
	// Attempt counts from 1; this one included.
	Attempt int
	// MaxAttempts is how many attempts the job has in all.
	MaxAttempts int
	// CreatedAt and ScheduledFor are by the database's clock.
	CreatedAt, ScheduledFor time.Time
	// Deadline is when this attempt is cancelled, by the clock of this process.
	Deadline time.Time
	// Lease names this claim. Whoever knows it may settle the job, as long as the claim stands.
	Lease string
	// Crashes counts the attempts that ended with the death of their worker.
	Crashes int
	// Metadata is the job's metadata column, valid JSON or nil.
	Metadata json.RawMessage

	id, lease  pgtype.UUID
	timeout    time.Duration // the job's own limit; 0: the type's
	size       int           // bytes of the payload as text, also where it was too big to be fetched
	lateness   time.Duration // from due to claimed, by the database's clock
	completeTx string
}

// CompleteTx completes the job in a transaction of the handler's, so that the job's effects and its completion are
// committed together or not at all. Output is the job's result: nil or valid JSON. The handler returns Settled once the
// transaction is committed. ErrStale means that another worker may have the job: roll back.
func (j Job) CompleteTx(ctx context.Context, tx pgx.Tx, output json.RawMessage) error {
	if j.completeTx == "" {
		return errors.New("complete job: it was not claimed by a Dispatcher")
	}
	var result *string
	if len(output) > 0 {
		text := string(output)
		result = &text
	}
	tag, err := tx.Exec(ctx, j.completeTx, j.id, j.lease, result)
	if err != nil {
		return fmt.Errorf("complete job: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("complete job: %w", ErrStale)
	}
	return nil
}
