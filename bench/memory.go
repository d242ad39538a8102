package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// memoryScenario: what the program itself takes, as a process of its own.
func memoryScenario() scenario {
	const kilobyte = 1000
	payload := `{"text": "` + strings.Repeat("x", kilobyte-len(`{"text": ""}`)) + `"}`
	return scenario{
		name: "memory",
		about: "Resident memory of `pgbell run` as its own process (VmRSS, VmHWM of /proc): idle, and the most while it drains jobs " +
			"with payloads of 1,000 bytes, by webhooks to a server on this machine that answers at once, or by a SQL function.",
		figures: []figure{
			{name: "peak", unit: "MB at most while draining", digits: 1, less: true},
			{name: "idle", unit: "MB idle", digits: 1, less: true},
			{name: "jobs_per_second", unit: "jobs/s"},
		},
		systems: func(set settings) []system {
			byWebhook := of(pgbell{}, 0, func(ctx context.Context, r round, _ queue) (figures, error) {
				return drainByProgram(ctx, r, payload, func(url string) string { return "webhook: {url: '" + url + "'}" })
			})
			byWebhook.name = "pgbell run, webhook"
			bySQL := of(pgbell{}, 0, func(ctx context.Context, r round, _ queue) (figures, error) {
				err := execute(ctx, r.url, "CREATE FUNCTION bench_noop(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
				if err != nil {
					return nil, err
				}
				return drainByProgram(ctx, r, payload, func(string) string { return "sqlfunc: {function: public.bench_noop}" })
			})
			bySQL.name = "pgbell run, sqlfunc"
			if !set.full {
				return []system{byWebhook}
			}
			return []system{byWebhook, bySQL}
		},
	}
}

// drainByProgram measures the program with one handler: idle, and while it drains jobs inserted in one statement.
func drainByProgram(ctx context.Context, r round, payload string, handler func(url string) string) (got figures, err error) {
	receiver, err := newReceiver(ctx, newRecorder(0))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receiver.stop()) }()
	child, err := startSidecar(ctx, r, handler(receiver.url))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	if err := pause(ctx, min(5*time.Second, r.set.window)); err != nil {
		return nil, err
	}
	idle, err := memory(child.process.Process.Pid, "VmRSS")
	if err != nil {
		return nil, err
	}
	conn, closeConn, err := connect(ctx, r.url)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	jobs, start := r.set.jobs/2, time.Now()
	if _, err := conn.Exec(ctx, fillPayloadSQL, jobs, payload); err != nil {
		return nil, fmt.Errorf("insert jobs: %w", err)
	}
	for left := true; left; {
		if left, err = exists(ctx, conn, leftSQL); err != nil {
			return nil, err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait for the last job: %w: the sidecar said: %s", err, child.said())
		}
	}
	took := time.Since(start)
	if err := expect(ctx, conn, completedSQL, jobs); err != nil {
		return nil, err
	}
	peak, err := memory(child.process.Process.Pid, "VmHWM")
	return figures{"idle": idle, "peak": peak, "jobs_per_second": float64(jobs) / took.Seconds()}, err
}
