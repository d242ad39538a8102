package dispatch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

const (
	// remindEvery is how often the log tells of the same trouble, however many statements fail by it and whether or not others
	// succeed in between.
	remindEvery = 30 * time.Second
	// forgetAfter is for how long a failure counts that nothing has come after: what failed is tried again sooner than that, if
	// there is still any need.
	forgetAfter = 15 * time.Second
	// renewEvery is how often all connections are given up, at most.
	renewEvery = time.Second
)

// What is done to the database, as the log and Failing name it.
const (
	// DoingClaim is the Failure that no job can be claimed for.
	DoingClaim = "claim jobs"

	doRegister  = "register this worker"
	doHeartbeat = "heartbeat"
	doCompare   = "read own leases"
	doSettle    = "settle jobs"
	doSurvey    = "look for dead workers"
	doReap      = "reap jobs"
	doPrune     = "prune finished jobs"
	doPause     = "pause type"
)

// database knows which statements fail, and says in the log when the first does and when none does any more.
type database struct {
	log   zerolog.Logger
	reset func() // all connections

	mu      sync.Mutex
	since   time.Time // zero while nothing fails
	renewed time.Time // when all connections were given up
	told    bool      // the log knows
	failing map[string]trouble
	last    map[string]time.Time // when the log told of a kind of trouble
}

type trouble struct {
	since, last time.Time
	err         error
}

// mendReadOnly is what to do about a server that is read-only.
const mendReadOnly = "lead database.url to the primary, or name all servers in it with target_session_attrs=read-write; it is tried again " +
	"until the server may be written to"

// isReadOnly: the server is a standby, or a primary that was demoted.
func isReadOnly(err error) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && refusal.Code == "25006"
}

// isUnanswered: the server said nothing.
func isUnanswered(err error) bool {
	var refusal *pgconn.PgError
	return !errors.As(err, &refusal)
}

func (d *database) down(doing string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	// The other connections are as old and lead to the same place. Each would have to fail by itself, and that takes as long as
	// a statement may take where nothing comes back.
	if (isReadOnly(err) || isUnanswered(err)) && now.Sub(d.renewed) >= renewEvery {
		d.renewed = now
		d.reset()
	}
	if d.failing == nil {
		d.failing, d.last = map[string]trouble{}, map[string]time.Time{}
	}
	if d.since.IsZero() {
		d.since = now
	}
	t := d.failing[doing]
	if t.since.IsZero() {
		t.since = now
	}
	t.last, t.err = now, err
	d.failing[doing] = t
	if d.told && now.Sub(d.last[""]) < remindEvery {
		return
	}
	kind := doing + " " + sqlState(err)
	if before, known := d.last[kind]; known && now.Sub(before) < remindEvery {
		return
	}
	d.told, d.last[""], d.last[kind] = true, now, now
	entry := d.log.Warn().Str("doing", doing).Err(err).Dur("down_ms", now.Sub(d.since))
	if isReadOnly(err) {
		entry.Str("cause", "the server is read-only: a standby, or a primary that was demoted").Str("mend", mendReadOnly)
	}
	entry.Msg("database statement failed, trying again")
}

// up notes that what was done has succeeded.
func (d *database) up(doing string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since.IsZero() {
		return
	}
	now := time.Now()
	delete(d.failing, doing)
	maps.DeleteFunc(d.failing, func(_ string, t trouble) bool { return now.Sub(t.last) > forgetAfter })
	if len(d.failing) > 0 {
		return
	}
	if d.told {
		d.log.Info().Dur("down_ms", now.Sub(d.since)).Msg("database answers again")
	}
	d.since, d.told = time.Time{}, false
}

// now returns what fails, in order.
func (d *database) now() []Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Failure
	for _, doing := range slices.Sorted(maps.Keys(d.failing)) {
		if t := d.failing[doing]; time.Since(t.last) <= forgetAfter {
			all = append(all, Failure{doing, t.since, t.err})
		}
	}
	return all
}

// Failure is a kind of statement that fails at present, and is tried again.
type Failure struct {
	Doing string    // what it is for, such as "claim jobs"
	Since time.Time // of the first of those that failed in a row
	Err   error     // of the last
}

// String is one line.
func (f Failure) String() string {
	return fmt.Sprintf("%s: %v (for %s)", f.Doing, f.Err, time.Since(f.Since).Round(time.Second))
}

func sqlState(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}
