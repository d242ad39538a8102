package main

import (
	"runtime"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/internal/config"
	"github.com/pgbell/pgbell/listener"
)

// newRegistry gathers the metrics of all parts.
func newRegistry(settings *config.Config, made *pools, dispatcher *dispatch.Dispatcher, bell *listener.Listener) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "pgbell", Name: "build_info", Help: "1; the version is in the labels.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	info.Set(1)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		dispatcher.Collector(), bell.Collector(), newPoolCollector(map[string]*pgxpool.Pool{"work": made.work, "sqlfunc": made.functions, "probe": made.probes}),
		newBacklog(made.probes, settings))
	return registry
}

// poolCollector shows the connection pools.
type poolCollector struct {
	pools                                                    map[string]*pgxpool.Pool
	conns, max, acquires, canceled, waits, waitSeconds, made *prometheus.Desc
}

func newPoolCollector(pools map[string]*pgxpool.Pool) *poolCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("pgbell_pool_"+name, help, append([]string{"pool"}, labels...), nil)
	}
	return &poolCollector{
		pools:       pools,
		conns:       desc("connections", "Database connections by state: in use, idle, being made.", "state"),
		max:         desc("connections_max", "Most connections that the pool may have."),
		acquires:    desc("acquires_total", "Connections taken from the pool."),
		canceled:    desc("acquires_canceled_total", "Times that a connection was given up waiting for."),
		waits:       desc("acquires_waited_total", "Times that a connection had to be waited for."),
		waitSeconds: desc("acquire_seconds_total", "Time spent taking connections."),
		made:        desc("connections_made_total", "Connections made."),
	}
}

func (p *poolCollector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, to) }

func (p *poolCollector) Collect(to chan<- prometheus.Metric) {
	for name, pool := range p.pools {
		stat := pool.Stat()
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{name}, labels...)...)
		}
		counter := func(desc *prometheus.Desc, value float64) {
			to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, name)
		}
		gauge(p.conns, float64(stat.AcquiredConns()), "in_use")
		gauge(p.conns, float64(stat.IdleConns()), "idle")
		gauge(p.conns, float64(stat.ConstructingConns()), "connecting")
		gauge(p.max, float64(stat.MaxConns()))
		counter(p.acquires, float64(stat.AcquireCount()))
		counter(p.canceled, float64(stat.CanceledAcquireCount()))
		counter(p.waits, float64(stat.EmptyAcquireCount()))
		counter(p.waitSeconds, stat.AcquireDuration().Seconds())
		counter(p.made, float64(stat.NewConnsCount()))
	}
}
