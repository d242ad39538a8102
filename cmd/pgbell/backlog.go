package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgbell/pgbell/internal/config"
)

const (
	backlogTypes      = 200
	backlogCount      = 10_000
	backlogPriorities = 50
	backlogTimeout    = 2 * time.Second
	// backlogFor is how long a sample holds, however often metrics are scraped.
	backlogFor = 10 * time.Second
	// otherTypes stands for the types beyond backlogTypes. A type of that name is added to it.
	otherTypes = "(other)"
)

// backlog shows what is pending, by type. It looks when it is scraped.
type backlog struct {
	sample              func(context.Context) ([]backlogRow, error)
	pending, oldest, up *prometheus.Desc

	mu    sync.Mutex
	taken time.Time
	rows  []backlogRow
	err   error
}

// backlogRow is one type's; Type is nil for all that are left over.
type backlogRow struct {
	Type    *string
	Pending int64
	Oldest  float64
}

func newBacklog(pool *pgxpool.Pool, settings *config.Config) *backlog {
	statement := inSchema(sqlBacklog, settings)
	return &backlog{
		sample: func(ctx context.Context) (found []backlogRow, err error) {
			batch := &pgx.Batch{}
			batch.Queue(sqlBriefly)
			batch.Queue(statement, backlogTypes, backlogCount, backlogPriorities).Query(func(rows pgx.Rows) error {
				found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[backlogRow])
				return err
			})
			if err := pool.SendBatch(ctx, batch).Close(); err != nil {
				return nil, err
			}
			return found, nil
		},
		pending: prometheus.NewDesc("pgbell_jobs_pending", fmt.Sprintf("Pending jobs, due or not, by type; %d means at least that many. "+
			"The first %d types by name; the others under %s.", backlogCount, backlogTypes, otherTypes), []string{"type"}, nil),
		oldest: prometheus.NewDesc("pgbell_jobs_oldest_due_seconds", "For how long the oldest due job has been waiting, by type; 0 if none is due.",
			[]string{"type"}, nil),
		up: prometheus.NewDesc("pgbell_backlog_up", "1 if pgbell_jobs_pending could be read.", nil, nil),
	}
}

func (b *backlog) Describe(to chan<- *prometheus.Desc) {
	to <- b.pending
	to <- b.oldest
	to <- b.up
}

func (b *backlog) Collect(to chan<- prometheus.Metric) {
	rows, err := b.read()
	up := 1.0
	if err != nil {
		up = 0
	}
	to <- prometheus.MustNewConstMetric(b.up, prometheus.GaugeValue, up)
	for _, row := range rows {
		to <- prometheus.MustNewConstMetric(b.pending, prometheus.GaugeValue, float64(row.Pending), *row.Type)
		to <- prometheus.MustNewConstMetric(b.oldest, prometheus.GaugeValue, row.Oldest, *row.Type)
	}
}

func (b *backlog) read() ([]backlogRow, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.taken.IsZero() && time.Since(b.taken) < backlogFor {
		return b.rows, b.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), backlogTimeout)
	defer cancel()
	rows, err := b.sample(ctx)
	b.rows, b.err, b.taken = merged(rows), err, time.Now()
	return b.rows, b.err
}

// merged gives each row a name that a label can have, and each name one row.
func merged(rows []backlogRow) []backlogRow {
	byName := map[string]int{}
	var list []backlogRow
	for _, row := range rows {
		name := otherTypes
		if row.Type != nil {
			name = strings.ToValidUTF8(*row.Type, "?")
		} else if row.Pending == 0 {
			continue
		}
		if i, twice := byName[name]; twice {
			list[i].Pending += row.Pending
			list[i].Oldest = max(list[i].Oldest, row.Oldest)
			continue
		}
		byName[name] = len(list)
		list = append(list, backlogRow{Type: &name, Pending: row.Pending, Oldest: row.Oldest})
	}
	return list
}
