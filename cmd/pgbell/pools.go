package main

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/listener"
)

const (
	// listenConns are the listener's two. They are no pool's, and are made first.
	listenConns = 2
	// probeConns are for health and metrics, which then neither wait for the work nor keep it waiting.
	probeConns = 2
	// workConns are enough for claims, settles, heartbeats and the rest; more would only queue in the server.
	workConns = 8
)

// pools of a sidecar. With the listener's two they have database.max_conns connections at most. None connects before it is used.
type pools struct{ work, functions, probes *pgxpool.Pool }

// shares of the pools in database.max_conns. pool_max_conns in the URL, if it is not 0, bounds each pool.
func shares(settings *config.Config, inURL int) (work, functions int) {
	room := settings.Database.MaxConns - listenConns - probeConns
	wanted := workConns
	if inURL > 0 {
		wanted = inURL
	}
	if functions = sqlFuncConns(settings); functions > 0 {
		functions = min(functions, max(room-wanted, 1))
		if inURL > 0 {
			functions = min(functions, inURL)
		}
	}
	return min(wanted, room-functions), functions
}

// sqlFuncConns is how many connections the SQL functions can use at once.
func sqlFuncConns(settings *config.Config) int {
	conns := 0
	for _, each := range settings.Handlers {
		if each.SQLFunc != nil {
			conns += min(each.Concurrency, settings.Concurrency)
		}
	}
	return min(conns, settings.Concurrency)
}

// newPools: the pools give up connections that they don't need while crowded says so.
func (a *app) newPools(settings *config.Config, pooled *atomic.Bool, crowded func() bool) (*pools, error) {
	inURL := 0
	if strings.Contains(settings.Database.URL, "pool_max_conns") {
		parsed, err := pgxpool.ParseConfig(settings.Database.URL)
		if err != nil {
			return nil, &failure{code: exitUsage, err: errors.New("database.url has a pool_ setting that can't be parsed")}
		}
		inURL = int(parsed.MaxConns)
	}
	work, functions := shares(settings, inURL)
	made := &pools{}
	for _, each := range []struct {
		pool  **pgxpool.Pool
		name  string
		conns int
	}{{&made.work, "pgbell worker", work}, {&made.functions, "pgbell sqlfunc", max(functions, 1)}, {&made.probes, "pgbell probe", probeConns}} {
		pool, err := a.newPool(settings, each.name, each.conns, pooled, crowded)
		if err != nil {
			made.close()
			return nil, err
		}
		*each.pool = pool
	}
	return made, nil
}

func (p *pools) close() {
	for _, each := range []*pgxpool.Pool{p.work, p.functions, p.probes} {
		if each != nil {
			each.Close()
		}
	}
}

// headStart is how long the work waits for the listener, whose two connections come first where there are few.
const headStart = time.Second

func listenFirst(ctx context.Context, bell *listener.Listener) {
	ctx, cancel := context.WithTimeout(ctx, headStart)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for bell.Deaf() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// isCrowdedOut reports whether the listener lacks a connection because the server, or the role, has none left.
func isCrowdedOut(bell *listener.Listener) bool {
	return bell.Deaf() && strings.Contains(bell.Health().Cause, "SQLSTATE 53300")
}

// warn says where fewer SQL functions run at once than was asked for.
func (p *pools) warn(settings *config.Config, logger zerolog.Logger) {
	if wanted, most := sqlFuncConns(settings), int(p.functions.Config().MaxConns); wanted > most {
		logger.Warn().Int("wanted", wanted).Int("most", most).Str("hint", "raise database.max_conns, or lower concurrency of the sqlfunc handlers").
			Msg("fewer SQL functions run at once than their handlers' concurrency says: database.max_conns bounds them")
	}
}
