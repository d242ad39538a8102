package chaos

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/postgres"
)

var postgresScenarios = []Scenario{
	{
		Name: "ears", Title: "the backends of a listener or bell connection are terminated", Mixed: true,
		Strike: terminateEar, Pause: [2]time.Duration{200 * time.Millisecond, 2 * time.Second},
	},
	{
		Name: "backends", Title: "all backends are terminated every 200 ms", Mixed: true,
		Strike: terminateAll, Allowed: Allowed{Late: 15 * time.Second},
	},
	{
		Name: "restart", Title: "Postgres is stopped (fast) and started", Mixed: true, Postgres: postgres.Options{Durable: true},
		Strike:  func(ctx context.Context, w *World) error { return restart(ctx, w, "stopped", postgres.Fast) },
		Allowed: Allowed{Late: 15 * time.Second, Resume: 3 * time.Second},
	},
	{
		Name: "crash", Title: "Postgres crashes (immediate stop) under 1,000 jobs/s", Postgres: postgres.Options{Durable: true},
		Load:    Load{Rate: 1000, Run: 5 * time.Millisecond, Light: true},
		Strike:  func(ctx context.Context, w *World) error { return restart(ctx, w, "crashed", postgres.Immediate) },
		Allowed: Allowed{Late: 30 * time.Second, Resume: 3 * time.Second},
	},
	{
		Name: "freeze", Title: "Postgres is paused (SIGSTOP), for less or more than a lease", Mixed: true,
		Strike: freeze, Allowed: Allowed{Late: leaseTime + 20*time.Second},
	},
	{
		Name: "strangers", Title: "strangers take all of max_connections, and what gets free of them",
		Postgres: postgres.Options{Settings: map[string]string{"max_connections": "80"}},
		Strike:   crowdOut, Allowed: Allowed{Late: 25 * time.Second},
	},
	{
		Name: "locks", Title: "strangers lock rows, or the whole table", Mixed: true,
		Strike: lockOut, Allowed: Allowed{Late: 20 * time.Second},
	},
}

// control is a connection of the scenario's own.
func (w *World) control(ctx context.Context) (conn *pgx.Conn, closed func(), err error) {
	config, err := pgx.ParseConfig(w.URL())
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	config.RuntimeParams["application_name"] = "chaos"
	if conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	return conn, func() { _ = conn.Close(context.WithoutCancel(ctx)) }, nil
}

// terminateEar terminates one or all of the connections that listen and ring.
func terminateEar(ctx context.Context, w *World) error {
	conn, closed, err := w.control(ctx)
	if err != nil {
		return err
	}
	defer closed()
	rows, err := conn.Query(ctx, earsSQL)
	if err != nil {
		return fmt.Errorf("look for listeners: %w", err)
	}
	ears, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return fmt.Errorf("look for listeners: %w", err)
	}
	if len(ears) > 0 && w.Random.IntN(4) > 0 {
		i := w.Random.IntN(len(ears))
		ears = ears[i : i+1]
	}
	return w.hold(ctx, Fault{What: "listeners terminated", Harmless: true}, func() error {
		_, err := conn.Exec(ctx, terminateSQL, ears)
		return err
	}, 0, nothing)
}

func terminateAll(ctx context.Context, w *World) error {
	conn, closed, err := w.control(ctx)
	if err != nil {
		return err
	}
	defer closed()
	until := time.Now().Add(w.Between(2*time.Second, 8*time.Second))
	return w.hold(ctx, Fault{What: "all backends terminated", Aftermath: comeBack, FromEnd: true}, func() error {
		for time.Now().Before(until) {
			if _, err := conn.Exec(ctx, terminateAllSQL); err != nil {
				return fmt.Errorf("terminate backends: %w", err)
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}, 0, nothing)
}

// restart has the server down for a while; the fault is over when it accepts connections.
func restart(ctx context.Context, w *World, how string, mode syscall.Signal) error {
	return w.hold(ctx, Fault{What: "Postgres " + how, Aftermath: comeBack, FromEnd: true}, func() error { return w.Server.Halt(mode) },
		w.Between(0, 4*time.Second), func() error { return w.Server.Launch(ctx) })
}

func freeze(ctx context.Context, w *World) error {
	long := w.Between(time.Second, leaseTime*2/3)
	if w.Random.IntN(2) == 0 {
		long = w.Between(leaseTime+time.Second, leaseTime+5*time.Second)
	}
	return w.hold(ctx, Fault{What: fmt.Sprintf("Postgres paused for %s", long.Round(time.Second)), Aftermath: comeBack, FromEnd: true},
		w.Server.Pause, long, w.Server.Resume)
}

// crowdOut takes all connections that are free, cuts the others, and takes those before their owners come back.
func crowdOut(ctx context.Context, w *World) (err error) {
	conn, closed, err := w.control(ctx)
	if err != nil {
		return err
	}
	defer closed()
	var crowd []*pgx.Conn
	leave := func() error {
		for _, one := range crowd {
			_ = one.Close(ctx) // it has done its work
		}
		return nil
	}
	long := w.Between(3*time.Second, leaseTime-3*time.Second)
	return w.hold(ctx, Fault{What: "max_connections used up", Aftermath: comeBack, FromEnd: true}, func() error {
		for until := time.Now().Add(long); time.Now().Before(until); {
			one, _, err := w.control(ctx)
			if err == nil {
				crowd = append(crowd, one)
				continue
			}
			if _, err := conn.Exec(ctx, terminateOneSQL); err != nil {
				return fmt.Errorf("terminate backend: %w", err)
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}, 0, leave)
}

// lockOut locks some jobs that are to be claimed or settled, or the table as a schema change does.
func lockOut(ctx context.Context, w *World) error {
	conn, closed, err := w.control(ctx)
	if err != nil {
		return err
	}
	defer closed()
	what, statement, long := "rows locked", lockRowsSQL, w.Between(2*time.Second, 12*time.Second)
	if w.Random.IntN(3) == 0 {
		what, statement, long = "table locked", lockTableSQL, w.Between(time.Second, 8*time.Second)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return w.hold(ctx, Fault{What: what, Harmless: true}, func() error {
		_, err := tx.Exec(ctx, statement)
		return err
	}, long, func() error { return errors.Join(tx.Rollback(context.WithoutCancel(ctx))) })
}
