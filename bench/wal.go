package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// walScenario: what a job leaves behind in the database.
func walScenario() scenario {
	return scenario{
		name: "wal",
		about: "A drain without autovacuum, just after a checkpoint (so that whole pages are among the WAL). WAL from the start of the " +
			"worker until the last job is completed; dead rows in all tables afterwards. The insert is not counted.",
		figures: []figure{
			{name: "wal", unit: "WAL bytes/job", less: true}, {name: "dead", unit: "dead rows/job", digits: 2, less: true},
		},
		systems: func(set settings) []system {
			jobs := set.jobs / 2
			queues := []queue{pgbell{}, riverQueue{tuned: true}, loops{batch: 500, connections: 4}}
			if set.full {
				queues = append(queues, pgbell{deletes: true}, graphileQueue(true), bossQueue(true), gueQueue{})
			}
			var systems []system
			for _, q := range queues {
				s := of(q, jobs, leftBehind(jobs))
				if own, ok := q.(pgbell); ok && own.deletes {
					s.name += ", rows deleted"
				}
				systems = append(systems, s)
			}
			return systems
		},
	}
}

func leftBehind(jobs int) func(context.Context, round, queue) (figures, error) {
	return func(ctx context.Context, r round, q queue) (figures, error) {
		if err := execute(ctx, r.url, noVacuumSQL, "CHECKPOINT"); err != nil {
			return nil, err
		}
		conn, closeConn, err := connect(ctx, r.url)
		if err != nil {
			return nil, err
		}
		defer closeConn()
		recorder := newRecorder(jobs)
		var wal float64
		err = attend(ctx, r, q, load{recorder: recorder}, func(worker worker) error {
			start, err := position(ctx, conn)
			if err != nil {
				return err
			}
			if err := worker.work(ctx); err != nil {
				return err
			}
			if _, err := settled(ctx, r, q, recorder, worker, jobs); err != nil {
				return err
			}
			end, err := position(ctx, conn)
			wal = end - start
			return err
		})
		if err != nil {
			return nil, err
		}
		// A session reports what it did when it ends.
		for others := true; others; {
			if others, err = exists(ctx, conn, othersSQL); err != nil {
				return nil, err
			}
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return nil, fmt.Errorf("wait for the worker's sessions to end: %w", err)
			}
		}
		dead, err := counted(ctx, conn, deadSQL)
		return figures{"wal": wal / float64(jobs), "dead": float64(dead) / float64(jobs)}, err
	}
}

func position(ctx context.Context, conn *pgx.Conn) (at float64, err error) {
	if err := conn.QueryRow(ctx, positionSQL).Scan(&at); err != nil {
		return 0, fmt.Errorf("read position of the WAL: %w", err)
	}
	return at, nil
}
