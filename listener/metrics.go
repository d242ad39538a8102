package listener

import "github.com/prometheus/client_golang/prometheus"

// metrics of a Listener.
type metrics struct {
	rings, cancels, unknown  prometheus.Counter
	deafPeriods              prometheus.Counter
	reconnects               *prometheus.CounterVec
	canary                   prometheus.Histogram
	heard, present, deafTime prometheus.Collector
}

func newMetrics(l *Listener) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "pgbell_listener_" + name, Help: help})
	}
	m := &metrics{
		rings:       counter("rings_total", "Rings heard."),
		cancels:     counter("cancels_total", "Requests heard to cancel a running job."),
		unknown:     counter("unknown_total", "Notifications heard on the channel that are none of the protocol's."),
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
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, collector := range m.each() {
		collector.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(values chan<- prometheus.Metric) {
	for _, collector := range m.each() {
		collector.Collect(values)
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
