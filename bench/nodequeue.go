package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// nodeQueue is a peer that runs on Node, in a process of its own.
type nodeQueue struct {
	called, said string
	script       string
	// options of the script, but for url, jobs and each.
	options func(load load) map[string]any
	fill    string
	// insert makes the statements of a producer.
	insert  func(boot map[string]string) statements
	probe   func(ctx context.Context, conn *pgx.Conn) (bool, error)
	verdict func(ctx context.Context, conn *pgx.Conn, jobs int) error
}

func (q nodeQueue) name() string                  { return q.called }
func (q nodeQueue) tuning() string                { return q.said }
func (nodeQueue) role() role                      { return peer }
func (nodeQueue) ready(ctx context.Context) error { return nodePeers(ctx) }

func (q nodeQueue) start(ctx context.Context, url string, load load) (*nodeProcess, error) {
	options := q.options(load)
	options["url"], options["each"], options["jobs"] = url, load.each.Milliseconds(), 0
	if load.recorder != nil {
		options["jobs"] = len(load.recorder.starts)
	}
	return startNode(ctx, q.script, options, load.recorder)
}

func (q nodeQueue) install(ctx context.Context, url string, jobs int) error {
	process, err := q.start(ctx, url, load{})
	if err != nil {
		return err
	}
	_, err = process.ask(ctx, fmt.Sprintf("install %d", jobs))
	if err := errors.Join(err, process.stop()); err != nil || q.fill == "" {
		return err
	}
	return executeFilled(ctx, url, q.fill, jobs)
}

func (q nodeQueue) boot(ctx context.Context, url string, load load) (worker, error) {
	process, err := q.start(ctx, url, load)
	if err != nil {
		return nil, err
	}
	if _, err = process.ask(ctx, "boot"); err != nil {
		return nil, errors.Join(err, process.stop())
	}
	return process, nil
}

func (q nodeQueue) producer(ctx context.Context, url string, connections int) (producer, error) {
	process, err := q.start(ctx, url, load{})
	if err != nil {
		return nil, err
	}
	answer, err := process.ask(ctx, "boot")
	if err := errors.Join(err, process.stop()); err != nil {
		return nil, err
	}
	facts := map[string]string{}
	if err := json.Unmarshal([]byte(answer), &facts); err != nil {
		return nil, fmt.Errorf("read answer of boot: %w", err)
	}
	made := q.insert(facts)
	made.pool, err = openPool(ctx, url, connections)
	return made, err
}

func (q nodeQueue) left(ctx context.Context, conn *pgx.Conn) (bool, error) {
	return q.probe(ctx, conn)
}

func (q nodeQueue) finished(ctx context.Context, conn *pgx.Conn, jobs int) error {
	return q.verdict(ctx, conn, jobs)
}

func tunedOrNot(name string, tuned bool) string {
	if tuned {
		return name + ", tuned"
	}
	return name + ", defaults"
}

// graphileQueue is graphile-worker: what its page on performance has for its quick stats, which is 24 jobs at once, a local
// queue of 500, completions in batches without delay; polling every 2 s stays, as add_job notifies.
func graphileQueue(tuned bool) queue {
	q := nodeQueue{
		called: tunedOrNot("graphile-worker", tuned), script: "graphile.mjs", fill: graphileFillSQL,
		said: "0.18: concurrentJobs 1 (or the scenario's), maxPoolSize 10",
		options: func(load load) map[string]any {
			preset := map[string]any{}
			if load.concurrency > 0 {
				preset["concurrentJobs"] = load.concurrency
			}
			return map[string]any{"preset": preset}
		},
		insert: func(map[string]string) statements {
			return statements{now: graphileInsertSQL, later: graphileInsertLaterSQL}
		},
	}
	if tuned {
		q.said = "0.18: concurrentJobs 24 (or the scenario's), localQueue of 500, completeJobBatchDelay and failJobBatchDelay 0, maxPoolSize 25"
		q.options = func(load load) map[string]any {
			preset := map[string]any{
				"concurrentJobs": 24, "maxPoolSize": 25, "localQueue": map[string]any{"size": 500},
				"completeJobBatchDelay": 0, "failJobBatchDelay": 0,
			}
			if load.concurrency > 0 {
				preset["concurrentJobs"] = load.concurrency
				preset["localQueue"] = map[string]any{"size": max(500, load.concurrency+1)}
			}
			return map[string]any{"preset": preset}
		}
	}
	q.probe = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		count, err := counted(ctx, conn, graphileCountSQL)
		return count > 0, err
	}
	q.verdict = func(ctx context.Context, conn *pgx.Conn, _ int) error {
		return expect(ctx, conn, graphileCountSQL, 0)
	}
	return q
}

// bossQueue is pg-boss: a queue with notify, workers that fetch again at once after a full batch, big batches.
func bossQueue(tuned bool) queue {
	q := nodeQueue{
		called: tunedOrNot("pg-boss", tuned), script: "pgboss.mjs",
		said: "12.38: batchSize 1, localConcurrency 1 (or the scenario's), polling every 2 s",
		options: func(load load) map[string]any {
			return map[string]any{"instance": map[string]any{}, "queue": map[string]any{},
				"work": map[string]any{"localConcurrency": max(1, load.concurrency)}}
		},
		insert: func(boot map[string]string) statements {
			return statements{now: boot["insert"], later: boot["insert"], args: bossJob}
		},
	}
	if tuned {
		q.said = "12.38: useListenNotify and a queue with notify, pollingIntervalSeconds and notifyPollingIntervalSeconds 0.5 (the least), " +
			"burstWhenBatchFull, batchSize 2000 with localConcurrency 4 (or the scenario's jobs at once in 4 batches), pool of 16"
		q.options = func(load load) map[string]any {
			batch := 2000 // drained 1.2 to 1.4 times as fast as with 1000
			if load.concurrency > 0 {
				batch = max(2, load.concurrency/4)
			}
			return map[string]any{
				"instance": map[string]any{"useListenNotify": true, "max": 16}, "queue": map[string]any{"notify": true},
				"work": map[string]any{
					"pollingIntervalSeconds": 0.5, "notifyPollingIntervalSeconds": 0.5, "burstWhenBatchFull": true,
					"batchSize": batch, "localConcurrency": 4,
				},
			}
		}
	}
	q.probe = func(ctx context.Context, conn *pgx.Conn) (bool, error) { return exists(ctx, conn, bossLeftSQL) }
	q.verdict = func(ctx context.Context, conn *pgx.Conn, jobs int) error {
		return expect(ctx, conn, bossCompletedSQL, jobs)
	}
	return q
}

// bossJob is the parameter of pg-boss's own insert statement.
func bossJob(n int, due time.Time) []any {
	job := `[{"data": ` + payloadOf(n)
	if !due.IsZero() {
		job += `, "startAfter": "` + due.UTC().Format("2006-01-02T15:04:05.000000Z") + `"`
	}
	return []any{job + "}]"}
}
