package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// idleScenario: what a worker costs that has nothing to do.
func idleScenario() scenario {
	return scenario{
		name: "idle",
		about: "A worker without jobs. Transactions in its database, less those in a copy of it that no worker uses (both are watched " +
			"from a third, while autovacuum is off); CPU time and resident memory of its process, where it has one.",
		figures: []figure{
			{name: "transactions", unit: "transactions/min", digits: 1, less: true},
			{name: "cpu", unit: "% of a CPU", digits: 3, less: true}, {name: "memory", unit: "MB resident", digits: 1, less: true},
		},
		systems: func(set settings) []system {
			program := of(pgbell{}, 0, idleProgram)
			program.name, program.tuning = "pgbell run", "shipped defaults"
			systems := []system{program}
			if !set.full {
				return systems
			}
			for _, q := range []queue{riverQueue{}, riverQueue{tuned: true}, graphileQueue(true), bossQueue(true), gueQueue{}} {
				systems = append(systems, of(q, 0, idlePeer))
			}
			return systems
		},
	}
}

func idleProgram(ctx context.Context, r round, q queue) (_ figures, err error) {
	receiver, err := newReceiver(ctx, newRecorder(0))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receiver.stop()) }()
	child, err := startSidecar(ctx, r, "webhook: {url: '"+receiver.url+"'}")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	return watchIdle(ctx, r, q, child.process.Process.Pid)
}

func idlePeer(ctx context.Context, r round, q queue) (got figures, err error) {
	err = attend(ctx, r, q, load{recorder: newRecorder(0)}, func(worker worker) error {
		if err := worker.work(ctx); err != nil {
			return err
		}
		pid := 0
		if process, ok := worker.(*nodeProcess); ok {
			pid = process.process.Process.Pid
		}
		got, err = watchIdle(ctx, r, q, pid)
		return err
	})
	return got, err
}

// watchIdle watches a worker for three windows, pgbell for six. Without a pid only its transactions are seen.
func watchIdle(ctx context.Context, r round, q queue, pid int) (_ figures, err error) {
	control, drop, err := r.database.copy(ctx, of(q, 0, nil).template)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	if err := r.database.admin(ctx, noAutovacuumSQL...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.database.admin(context.WithoutCancel(ctx), autovacuumSQL...)) }()
	// A session reports what it did at its start ten seconds late, if it is idle from then on.
	if err := pause(ctx, min(12*time.Second, 20*r.set.window)); err != nil {
		return nil, err
	}
	conn, closeConn, err := connect(ctx, r.database.server.URL("postgres"))
	if err != nil {
		return nil, err
	}
	defer closeConn()
	from, err := readIdle(ctx, conn, r.url, control, pid)
	if err != nil {
		return nil, err
	}
	watched := 3 * r.set.window
	if q.role() == ours {
		watched *= 2
	}
	if err := pause(ctx, watched); err != nil {
		return nil, err
	}
	to, err := readIdle(ctx, conn, r.url, control, pid)
	if err != nil {
		return nil, err
	}
	got := figures{"transactions": float64(to.transactions-from.transactions) / watched.Minutes()}
	if pid != 0 {
		got["cpu"] = 100 * (to.processor - from.processor).Seconds() / watched.Seconds()
		got["memory"], err = memory(pid, "VmRSS")
	}
	return got, err
}

// idleReading are counters at one time.
type idleReading struct {
	transactions int64
	processor    time.Duration
}

func readIdle(ctx context.Context, conn *pgx.Conn, url, control string, pid int) (reading idleReading, err error) {
	var names [2]string
	for i, url := range []string{url, control} {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			return reading, fmt.Errorf("read URL: %w", err)
		}
		names[i] = config.Database
	}
	if err := conn.QueryRow(ctx, transactionsSQL, names[0], names[1]).Scan(&reading.transactions); err != nil {
		return reading, fmt.Errorf("count transactions: %w", err)
	}
	if pid != 0 {
		reading.processor, err = processorTime(pid)
	}
	return reading, err
}
