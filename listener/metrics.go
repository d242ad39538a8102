package listener

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Listener.
type metrics struct {
	rings, cancels, unknown  prometheus.Counter
	deafPeriods              prometheus.Counter
	sleeps, rushes           prometheus.Counter
	waits                    prometheus.Histogram
	reconnects               *prometheus.CounterVec
	canary                   prometheus.Histogram
	heard, present, deafTime prometheus.Collector
	asleep, waiting          prometheus.Collector
	queueUsage               prometheus.Gauge
	states                   *prometheus.Desc
	slumber                  func() *slumber
}

func newMetrics(l *Listener) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "pgbell_listener_" + name, Help: help})
	}
	m := &metrics{
		rings:   counter("rings_total", "Rings heard."),
		cancels: counter("cancels_total", "Requests heard to cancel a running job."),
		unknown: counter("unknown_total", "Notifications heard on the channel that are none of the protocol's."),
		sleeps:  counter("sleeps_total", "Times that the sleepers' lock was taken: from then on each insert rings."),
		rushes:  counter("rushes_total", "Times that it was let go because rings came too fast."),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pgbell_listener_unannounced_wait_seconds", Help: "Time until transactions that had inserted without ringing had ended.",
			Buckets: []float64{.005, .02, .1, .5, 2, 10, 60, 300}}),
		asleep: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pgbell_listener_asleep", Help: "1 while the sleepers' lock is held, so that each insert rings."},
			func() float64 { asleep, _, _ := l.slumber.now(); return number(asleep) }),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pgbell_listener_unannounced_seconds", Help: "For how long such transactions have been waited for at present."},
			func() float64 { _, waiting, _ := l.slumber.now(); return waiting.Seconds() }),
		states: prometheus.NewDesc("pgbell_listener_state_seconds_total", "Time spent asleep, each insert ringing, and awake.",
			[]string{"state"}, nil),
		slumber: func() *slumber { return l.slumber },
		queueUsage: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pgbell_listener_queue_usage", Help: "How full the server's queue of notifications was at the last canary, 0 to 1."}),
		deafPeriods: counter("deaf_periods_total", "Times that the bell ceased to be heard."),
		reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pgbell_listener_reconnects_total", Help: "Attempts to connect again, by connection."}, []string{"connection"}),
		canary: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pgbell_listener_canary_seconds", Help: "Time from sending a canary to hearing its echo.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2, 5}}),
		heard: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pgbell_listener_heard", Help: "1 while the bell is heard, 0 while deaf."},
			func() float64 { return number(!l.Deaf()) }),
		present: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pgbell_listener_present", Help: "1 while the presence lock is held."},
			func() float64 { return number(l.Present()) }),
		deafTime: prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "pgbell_listener_deaf_seconds_total", Help: "Time that the bell was not heard while it should be."},
			func() float64 { return l.hearing.deafSeconds() }),
	}
	for _, role := range []string{roleListener, roleBell} {
		m.reconnects.WithLabelValues(role)
	}
	return m
}

func (m *metrics) each() []prometheus.Collector {
	return []prometheus.Collector{
		m.rings, m.cancels, m.unknown, m.deafPeriods, m.reconnects, m.canary, m.heard, m.present, m.deafTime,
		m.sleeps, m.rushes, m.waits, m.asleep, m.waiting, m.queueUsage,
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range m.each() {
		collector.Describe(descriptions)
	}
	descriptions <- m.states
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(values chan<- prometheus.Metric) {
	for _, collector := range m.each() {
		collector.Collect(values)
	}
	asleep, awake := m.slumber().seconds(time.Now())
	values <- prometheus.MustNewConstMetric(m.states, prometheus.CounterValue, asleep, "asleep")
	values <- prometheus.MustNewConstMetric(m.states, prometheus.CounterValue, awake, "awake")
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
