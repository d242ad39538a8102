package dispatch

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// maxClaim is how many jobs one claim takes at most.
const maxClaim = 1000

// farAhead stands for never, where a job's due time is meant.
const farAhead = 24 * time.Hour

// claimed is what came of a claim.
type claimed struct {
	jobs int
	// more: there may be more than it has claimed.
	more bool
	// waited is how long the one that was due first has waited.
	waited time.Duration
}

// claim claims what there is room for, in the levels that are known, and starts it. Once sent it goes on although ctx is done: a
// claim whose answer is not heard would leave jobs with a holder that doesn't know of them.
func (d *Dispatcher) claim(ctx, jobs context.Context, w wants) (claimed, error) {
	if err := ctx.Err(); err != nil {
		return claimed{}, err // it may have been done by the end of a wait for slots, or for others to be faster
	}
	by := d.levels.claim(w)
	if w.nothing() || len(by.levels) == 0 {
		return claimed{}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.statementTimeout())
	defer cancel()
	d.claiming <- struct{}{}
	defer func() { <-d.claiming }()

	sent, beat := time.Now(), d.clock()
	d.claimedAt = sent
	// A worker that holds jobs heartbeats three times in its lease time. From none to some, the claim does, if it is time.
	renew := w.none && d.leaseLeft() < d.config.LeaseTime*2/3
	most := min(w.slots, maxClaim)
	statement, arguments := d.sql.claim, []any{d.worker.Load(), renew, w.biggest, most, by.levelTypes, by.priorities, by.dues, by.ids}
	if by.oneType() {
		most = min(most, int(by.most[0]))
		arguments[3] = most
	} else {
		statement = d.sql.claimMerged
		arguments = append(arguments, by.types, by.most, by.others, w.any)
	}
	batch := &pgx.Batch{}
	batch.Queue(d.sql.plain)
	found := make([]*attempt, 0, min(most, 64))
	batch.Queue(statement, arguments...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			a, err := d.scanAttempt(rows)
			if err != nil {
				return err
			}
			found = append(found, a)
		}
		return rows.Err()
	})
	if err := d.claims.send(ctx, batch); err != nil {
		d.suspect()
		return claimed{}, fmt.Errorf("claim jobs: %w", err)
	}
	d.database.up(DoingClaim)
	d.readyOnce.Do(func() { close(d.ready) })
	d.metrics.claim(len(found), most, time.Since(sent))
	if len(found) > 0 && renew {
		d.beaten(beat)
	}
	if len(found) > 0 {
		d.reaperNudge.send() // where we found work, others may have too
	}
	slices.SortFunc(found, func(a, b *attempt) int {
		return cmp.Or(cmp.Compare(b.job.Priority, a.job.Priority), a.job.place().compare(b.job.place()))
	})
	full := len(found) >= most
	d.levels.note(by, found, full, sent)
	got := claimed{jobs: len(found), more: full || d.levels.more(w)}
	for _, a := range found {
		got.waited = max(got.waited, a.job.lateness)
	}
	company, alone := partition(found)
	d.start(jobs, company)
	d.seclude(jobs, alone)
	runtime.Gosched() // a lone job first, then what follows it here
	return got, nil
}

// nextDue returns how long it is until the next job is due, of the levels that are known; not positive if one has become due
// since the last claim, which took all that were.
func (d *Dispatcher) nextDue(ctx context.Context, w wants) (time.Duration, error) {
	by := d.levels.claim(w)
	next := d.levels.nextHead(by, w, time.Now())
	if len(by.levels) == 0 {
		return next, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.statementTimeout())
	defer cancel()
	found, err := queryUnder(ctx, &d.claims, d.sql.plain, pgx.RowTo[*float64], d.sql.next, by.levelTypes, by.priorities,
		time.Since(d.claimedAt).Seconds())
	if err != nil {
		return 0, fmt.Errorf("look for due jobs: %w", err)
	}
	if len(found) == 1 && found[0] != nil {
		next = min(next, seconds(*found[0]))
	}
	return next, nil
}

func (d *Dispatcher) scanAttempt(rows pgx.Rows) (*attempt, error) {
	a := &attempt{}
	j := &a.job
	var jobType pgtype.DriverBytes
	var size *int
	var timeout pgtype.Interval
	var now time.Time
	err := rows.Scan(&j.id, &jobType, (*[]byte)(&j.Payload), &size, &j.Priority, &j.Attempt, &j.MaxAttempts, &j.CreatedAt, &j.ScheduledFor,
		&j.lease, &j.Crashes, (*[]byte)(&j.Metadata), &timeout, &now)
	if err != nil {
		return nil, err
	}
	j.Type = d.lanes.name(jobType)
	j.ID, j.Lease = texts(j.id, j.lease)
	j.completeTx = d.sql.completeTx
	if d.config.Retention.Completed == KeepNothing {
		j.completeTx = d.sql.completeTxGone
	}
	if j.size = len(j.Payload); size != nil {
		j.size = *size
	}
	j.timeout = length(timeout)
	since := j.ScheduledFor
	if j.CreatedAt.After(since) {
		since = j.CreatedAt
	}
	j.lateness = now.Sub(since)
	return a, nil
}

// texts of two uuids, in one allocation.
func texts(id, lease pgtype.UUID) (string, string) {
	const long = 36
	var text [2 * long]byte
	for i, uuid := range []pgtype.UUID{id, lease} {
		to, from := text[i*long:], uuid.Bytes[:]
		hex.Encode(to, from[:4])
		to[8], to[13], to[18], to[23] = '-', '-', '-', '-'
		hex.Encode(to[9:], from[4:6])
		hex.Encode(to[14:], from[6:8])
		hex.Encode(to[19:], from[8:10])
		hex.Encode(to[24:], from[10:])
	}
	both := string(text[:])
	return both[:long], both[long:]
}

// length of an interval, within what a Duration can hold; a month has 30 days, as Postgres has it.
func length(i pgtype.Interval) time.Duration {
	const day = 24 * 60 * 60
	return seconds(float64(i.Microseconds)/1e6 + float64(i.Days)*day + float64(i.Months)*30*day)
}

// seconds turns the database's seconds into a Duration, within what one can hold.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, -1e9), 1e9) * float64(time.Second))
}
