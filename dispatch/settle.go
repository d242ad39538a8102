package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// what becomes of a job, as settleSQL names it.
type what string

const (
	whatNothing     what = ""
	whatDone        what = "done"
	whatRetry       what = "retry"
	whatFail        what = "fail"
	whatSnooze      what = "snooze"
	whatUnavailable what = "unavailable"
	whatBack        what = "back"
	whatHold        what = "hold"
	whatCancel      what = "cancel" // of an attempt that did not complete, by a cancel that was asked for
)

// verdict is what is to be written of an attempt.
type verdict struct {
	attempt *attempt
	what    what
	err     string
	delay   time.Duration
	output  json.RawMessage
}

const (
	maxSettleBatch = 1000
	// settleWriters write at once, when one can't keep up.
	settleWriters = 2
	// A batch that takes slowWrite lets the second writer take slowBatch: where many others want the server's processors, two
	// server processes get twice the share of one.
	slowWrite = 20 * time.Millisecond
	slowBatch = 50
)

// settler writes verdicts in batches: all that have come while the last batch was written. A lone one is written at once. One
// writer has the larger batches, so the second only helps when a whole batch is left over, or the first is slow.
type settler struct {
	mu      sync.Mutex
	queue   []verdict
	closed  bool
	writing int
	began   time.Time // when the last batch was taken
	aside   int       // verdicts that come back later
	some    *sync.Cond
}

func newSettler() *settler {
	s := &settler{}
	s.some = sync.NewCond(&s.mu)
	return s
}

func (s *settler) add(v verdict) {
	s.mu.Lock()
	s.queue = append(s.queue, v)
	wake := s.mayTake()
	s.mu.Unlock()
	if wake {
		s.some.Signal()
	}
}

// mayTake reports whether a writer may take what is queued, beside those that write.
func (s *settler) mayTake() bool {
	switch queued := len(s.queue); {
	case s.writing == 0 || s.closed:
		return queued > 0
	case queued < slowBatch:
		return false
	default:
		return queued >= maxSettleBatch || time.Since(s.began) >= slowWrite
	}
}

// lockedPause is how long a verdict whose job's row is locked by another transaction waits for the next try.
const lockedPause = time.Second

// later adds verdicts again after a pause.
func (s *settler) later(locked []verdict) {
	if len(locked) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside += len(locked)
	time.AfterFunc(lockedPause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.aside -= len(locked)
		s.queue = append(s.queue, locked...)
		s.some.Broadcast()
	})
}

// close makes next return nil when the queue is empty.
func (s *settler) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.some.Broadcast()
}

// next waits for a batch. The caller says by wrote when it has written it.
func (s *settler) next() []verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.mayTake() {
		if s.closed && len(s.queue)+s.aside == 0 {
			return nil
		}
		s.some.Wait()
	}
	s.writing++
	s.began = time.Now()
	if len(s.queue) <= maxSettleBatch {
		batch := s.queue
		s.queue = nil
		return batch
	}
	batch := slices.Clone(s.queue[:maxSettleBatch])
	rest := copy(s.queue, s.queue[maxSettleBatch:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	return batch
}

func (s *settler) wrote() {
	s.mu.Lock()
	s.writing--
	s.mu.Unlock()
	s.some.Signal()
}

// settle writes verdicts until the settler is closed and empty, or ctx is done.
func (d *Dispatcher) settle(ctx context.Context) {
	for {
		batch := d.settler.next()
		if batch == nil {
			return
		}
		var done, other []verdict
		for _, v := range batch {
			if v.what == whatDone {
				done = append(done, v)
			} else {
				other = append(other, v)
			}
		}
		d.write(ctx, done, d.writeDone)
		d.write(ctx, other, d.writeOther)
		d.settler.wrote()
	}
}

// write writes a batch, again and again until it is written, its leases have run out, or ctx is done. Whatever it could not
// write is left to the reaper, or given back once the database answers again.
func (d *Dispatcher) write(ctx context.Context, batch []verdict, statement func(context.Context, []verdict) (int64, error)) {
	if len(batch) == 0 {
		return
	}
	defer func() {
		d.attempts.remove(batch)
		d.lanes.settled(len(batch))
	}()
	pause := newPause(20*time.Millisecond, time.Second)
	for len(batch) > 0 {
		written, err := statement(ctx, batch)
		if err == nil {
			d.database.up(doSettle)
			d.metrics.settled(batch, written)
			return
		}
		if isLocked(err) {
			if free, err := d.setLockedAside(ctx, batch); err == nil {
				batch = free
				continue
			}
		}
		if isUnstorable(err) {
			aside := d.writeSingly(ctx, batch, statement, err)
			d.settler.later(aside)
			batch = slices.DeleteFunc(batch, func(v verdict) bool {
				return slices.ContainsFunc(aside, func(a verdict) bool { return a.attempt == v.attempt })
			})
			return
		}
		d.database.down(doSettle, err)
		if ctx.Err() != nil || d.leaseLeft() <= 0 {
			d.log.Error().Int("jobs", len(batch)).Err(err).Msg("outcomes could not be written before the lease ended: the jobs will run again")
			d.suspect() // where no other worker reaps them, it is up to us to find them
			return
		}
		pause.wait(ctx, nil)
	}
}

// setLockedAside leaves those of a batch whose rows somebody else has locked to a later batch, and returns the others.
func (d *Dispatcher) setLockedAside(ctx context.Context, batch []verdict) (free []verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	ids, leases := keys(batch)
	found, err := queryUnder(ctx, d.shared, d.sql.plainSettle, pgx.RowTo[pgtype.UUID], d.sql.unlocked, ids, leases)
	if err != nil {
		return nil, fmt.Errorf("look for locked jobs: %w", err)
	}
	unlocked := make(map[pgtype.UUID]bool, len(found))
	for _, lease := range found {
		unlocked[lease] = true
	}
	var locked []verdict
	for _, v := range batch {
		if unlocked[v.attempt.job.lease] {
			free = append(free, v)
		} else {
			locked = append(locked, v)
		}
	}
	d.settler.later(locked)
	return free, nil
}

// writeSingly finds the verdict that the database refuses among those it would take. The refused one fails for good, with
// an error that says why. It returns those that could not be written for another reason, to be written later.
func (d *Dispatcher) writeSingly(ctx context.Context, batch []verdict, statement func(context.Context, []verdict) (int64, error), refusal error) (aside []verdict) {
	for _, v := range batch {
		one := []verdict{v}
		if len(batch) > 1 {
			written, err := statement(ctx, one)
			if err == nil {
				d.metrics.settled(one, written)
				continue
			}
			if refusal = err; !isUnstorable(err) {
				aside = append(aside, v)
				continue
			}
		}
		d.log.Warn().Str("job_id", v.attempt.job.ID).Str("type", v.attempt.job.Type).Err(refusal).Msg("outcome of a job can't be stored")
		one[0].what, one[0].output = whatFail, nil
		one[0].err = storable("the outcome can't be stored: "+refusal.Error(), maxErrorText)
		written, err := d.writeOther(ctx, one)
		if err != nil {
			aside = append(aside, one[0])
			continue
		}
		d.metrics.settled(one, written)
	}
	return aside
}

func (d *Dispatcher) writeDone(ctx context.Context, batch []verdict) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	ids, leases := keys(batch)
	if d.config.Retention.Completed == KeepNothing {
		return execUnder(ctx, d.shared, d.sql.plainSettle, d.sql.completeGone, ids, leases)
	}
	outputs := map[string]json.RawMessage{}
	for _, v := range batch {
		if len(v.output) > 0 {
			outputs[v.attempt.job.Lease] = v.output
		}
	}
	var text *string
	if len(outputs) > 0 {
		marshalled, err := json.Marshal(outputs)
		if err != nil {
			return 0, fmt.Errorf("marshal results: %w", err)
		}
		object := string(marshalled)
		text = &object
	}
	return execUnder(ctx, d.shared, d.sql.plainSettle, d.sql.complete, ids, leases, text)
}

// ending is what settleSQL reads of a verdict.
type ending struct {
	What  what    `json:"what"`
	Error string  `json:"error,omitempty"`
	Delay float64 `json:"delay"`
}

func (d *Dispatcher) writeOther(ctx context.Context, batch []verdict) (int64, error) {
	endings := make(map[string]ending, len(batch))
	for _, v := range batch {
		endings[v.attempt.job.Lease] = ending{v.what, v.err, v.delay.Seconds()}
	}
	text, err := json.Marshal(endings)
	if err != nil {
		return 0, fmt.Errorf("marshal outcomes: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	type row struct {
		Lease pgtype.UUID
		What  what
	}
	ids, leases := keys(batch)
	rows, err := queryUnder(ctx, d.shared, d.sql.plainSettle, pgx.RowToStructByPos[row], d.sql.settle, ids, leases, string(text),
		d.config.Retention.Failed != KeepNothing, d.config.Retention.Cancelled != KeepNothing)
	if err != nil {
		return 0, err
	}
	became := make(map[pgtype.UUID]what, len(rows))
	for _, r := range rows {
		became[r.Lease] = r.What
	}
	for i := range batch {
		batch[i].what = became[batch[i].attempt.job.lease] // a last retry is a failure; nothing: the lease was stale
	}
	return int64(len(rows)), nil
}

// keys are arrays that pgx encodes without reflection.
func keys(batch []verdict) (ids, leases pgtype.FlatArray[pgtype.UUID]) {
	ids, leases = make([]pgtype.UUID, len(batch)), make([]pgtype.UUID, len(batch))
	for i, v := range batch {
		ids[i], leases[i] = v.attempt.job.id, v.attempt.job.lease
	}
	return ids, leases
}
