package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// heldScenario: a transaction that somebody left open keeps vacuum from removing what the queue leaves behind.
func heldScenario() scenario {
	return scenario{
		name: "held_horizon",
		about: "A drain while a repeatable-read transaction in the same database stays open, so that no dead row can be removed. " +
			"The rates at which the first and the last tenth of the jobs started.",
		figures: []figure{
			{name: "first", unit: "jobs/s, first tenth"}, {name: "last", unit: "jobs/s, last tenth"},
			{name: "kept", unit: "last / first", digits: 2},
		},
		systems: func(set settings) []system {
			jobs := 2 * set.jobs
			queues := []queue{pgbell{}, riverQueue{tuned: true}}
			if set.full {
				queues = append(queues, graphileQueue(true), bossQueue(true))
			}
			var systems []system
			for _, q := range queues {
				systems = append(systems, of(q, jobs, held(jobs)))
			}
			return systems
		},
	}
}

func held(jobs int) func(context.Context, round, queue) (figures, error) {
	return func(ctx context.Context, r round, q queue) (_ figures, err error) {
		conn, closeConn, err := connect(ctx, r.url)
		if err != nil {
			return nil, err
		}
		defer closeConn()
		holder, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			return nil, fmt.Errorf("hold the horizon: %w", err)
		}
		defer func() { _ = holder.Rollback(context.WithoutCancel(ctx)) }()
		if _, err := holder.Exec(ctx, "SELECT txid_current()"); err != nil {
			return nil, fmt.Errorf("hold the horizon: %w", err)
		}
		recorder := newRecorder(jobs)
		err = attend(ctx, r, q, load{recorder: recorder}, func(worker worker) error {
			if err := worker.work(ctx); err != nil {
				return err
			}
			_, err := settled(ctx, r, q, recorder, worker, jobs)
			return err
		})
		if err != nil {
			return nil, err
		}
		first, last := recorder.tenths(jobs)
		return figures{"first": first, "last": last, "kept": last / first}, nil
	}
}
