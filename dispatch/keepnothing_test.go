package dispatch_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/dispatch"
)

// A retention of nothing deletes jobs as they end, with their errors, and no others.
func TestKeepNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(dispatch.Config{
		Retention: dispatch.Retention{Completed: dispatch.KeepNothing, Failed: dispatch.KeepNothing, Cancelled: dispatch.KeepNothing},
		Types: map[string]dispatch.Type{
			"done": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result { return dispatch.Done([]byte(`1`)) })},
			"second": {Handler: handlerFunc(func(_ context.Context, job dispatch.Job) dispatch.Result {
				if job.Attempt == 1 {
					return dispatch.RetryIn(errors.New("first"), time.Millisecond)
				}
				return dispatch.Done(nil)
			})},
			"fail": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result { return dispatch.Fail(errors.New("never")) })},
			"tx": {Handler: handlerFunc(func(ctx context.Context, job dispatch.Job) dispatch.Result {
				err := pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error { return job.CompleteTx(ctx, tx, []byte(`2`)) })
				if err != nil {
					return dispatch.Retry(err)
				}
				return dispatch.Settled()
			})},
			"cancel": {Handler: handlerFunc(func(ctx context.Context, job dispatch.Job) dispatch.Result {
				if _, err := f.pool.Exec(ctx, `SELECT cancel_job($1)`, job.ID); err != nil {
					return dispatch.Fail(err)
				}
				return dispatch.Retry(errors.New("cancelled meanwhile"))
			})},
			"later": {Handler: handlerFunc(func(context.Context, dispatch.Job) dispatch.Result {
				return dispatch.RetryIn(errors.New("not yet"), time.Hour)
			})},
		},
	})
	f.exec(`INSERT INTO jobs (type) SELECT t FROM unnest(array['done', 'second', 'fail', 'tx', 'cancel', 'later']) t, generate_series(1, 20)`)
	f.eventually("all that have ended are gone", func() bool {
		return f.count(`SELECT count(*) FROM jobs`) == 20 && f.count(`SELECT count(*) FROM jobs WHERE type = 'later' AND status = 'pending' AND attempts = 1`) == 20
	})
	if n := f.count(`SELECT count(*) FROM job_errors`); n != 20 {
		t.Errorf("%d rows in job_errors, want those of the 20 jobs that are left", n)
	}
}
