package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/gofunc"
)

type recheck func(ctx context.Context, thorough bool) (found bool, err error)

// scriptedBell is heard, never rings, and sleeps as a test says.
type scriptedBell func(context.Context, recheck) (asleep bool, err error)

func (scriptedBell) Rings() <-chan struct{}   { return nil }
func (scriptedBell) Cancels() <-chan struct{} { return nil }
func (scriptedBell) Awake()                   {}
func (scriptedBell) Deaf() bool               { return false }
func (scriptedBell) Hearings() uint64         { return 1 }
func (b scriptedBell) Sleep(ctx context.Context, again func(context.Context, bool) (bool, error)) (bool, error) {
	return b(ctx, again)
}

// A slot that is freed after the last look, and before the rest that follows it, ends that rest.
func TestSlotFreedWhileFallingAsleep(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	release := make(chan struct{})
	slept := false
	f.exec(`INSERT INTO jobs (type) VALUES ('one by one'), ('one by one')`)
	f.start(dispatch.Config{
		Poll: time.Hour,
		Types: map[string]dispatch.Type{
			"one by one": {Concurrency: 1, Handler: gofunc.New(func(context.Context, dispatch.Job) (any, error) { <-release; return nil, nil })},
			"other":      {Handler: gofunc.New(nothing)},
		},
		Bell: scriptedBell(func(ctx context.Context, again recheck) (bool, error) {
			found, err := again(ctx, true)
			if found || err != nil || slept {
				return !found, err
			}
			slept = true
			close(release)
			f.eventually("the first job completes", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 1 })
			return true, nil
		}),
	})
	f.eventually("both complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 2 })
}

// While each poll of an awake bell finds jobs, those that claims by levels miss are found too.
func TestSteadyFlowHidesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{
		Poll:  time.Hour,
		Types: map[string]dispatch.Type{"flow": {Handler: gofunc.New(nothing)}, "*": {Handler: gofunc.New(nothing)}},
		Bell: scriptedBell(func(ctx context.Context, again recheck) (bool, error) {
			for {
				if _, err := f.pool.Exec(ctx, `INSERT INTO jobs (type) VALUES ('flow')`); err != nil {
					return false, err
				}
				if found, err := again(ctx, false); found || err != nil {
					return false, err
				}
			}
		}),
	})
	f.eventually("jobs flow", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) > 10 })
	for _, missed := range []string{
		`INSERT INTO jobs (type) VALUES ('new') RETURNING id`,
		`INSERT INTO jobs (type, priority) VALUES ('flow', 3) RETURNING id`,
		`INSERT INTO jobs (type, scheduled_for) VALUES ('flow', now() - interval '1 h') RETURNING id`,
	} {
		f.until(f.insert(missed), "completed")
	}
}

// asleepAtOnce is a bell that never rings and never looks.
func asleepAtOnce(context.Context, recheck) (bool, error) { return true, nil }

// Where there are more levels than one walk goes over, and none of what it has found is due, or not all that is.
func TestWalksGoOnWhereOneWasCutShort(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ future, due, handled string }{
		"types": {
			`INSERT INTO jobs (type, scheduled_for) SELECT 'm' || n, now() + interval '1 h' FROM generate_series(1, 6000) n`,
			`INSERT INTO jobs (type) VALUES ('a'), ('z')`, "*",
		},
		"priorities": {
			`INSERT INTO jobs (type, priority, scheduled_for) SELECT 'm', n, now() + interval '1 h' FROM generate_series(1, 6000) n`,
			`INSERT INTO jobs (type, priority) VALUES ('m', 7000), ('m', -1)`, "m",
		},
		"priorities of any type": {
			`INSERT INTO jobs (type, priority, scheduled_for) SELECT 'm', n, now() + interval '1 h' FROM generate_series(1, 6000) n`,
			`INSERT INTO jobs (type, priority) VALUES ('m', 7000), ('m', -1)`, "*",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.exec(test.future)
			f.exec(test.due)
			f.start(dispatch.Config{Bell: scriptedBell(asleepAtOnce), Poll: time.Hour, Types: map[string]dispatch.Type{test.handled: {Handler: gofunc.New(nothing)}}})
			f.eventually("both complete", func() bool { return f.count(`SELECT count(*) FROM jobs WHERE status = 'completed'`) == 2 })
		})
	}
}

// The first times that Postgres knows, before which a claim can't begin, are no obstacle.
func TestJobsDueInTheBeginning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{Types: map[string]dispatch.Type{"*": {Handler: gofunc.New(nothing)}}})
	for _, due := range []string{"4714-11-24 00:00:00+00 BC", "4714-11-24 00:00:00.3+00 BC", "0001-01-01 00:00:00+00", "now"} {
		f.until(f.insert(`INSERT INTO jobs (type, scheduled_for) VALUES ('old', $1::text::timestamptz) RETURNING id`, due), "completed")
	}
}
