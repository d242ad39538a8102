package dispatch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the Dispatcher's. The label type is a key of Config.Types: types under DefaultType share its label, so that
// nobody can make up labels without end.
type metrics struct {
	claimed, settledJobs         *prometheus.CounterVec
	stale, reaped, pruned        prometheus.Counter
	unhandled, deadRows          prometheus.Gauge
	horizon, horizonBehind       prometheus.Gauge
	pickup, run                  *prometheus.HistogramVec
	claimSeconds                 prometheus.Histogram
	claimJobs                    prometheus.Counter
	claims                       map[string]prometheus.Counter
	wakeups                      *prometheus.CounterVec
	unannounced, walks           prometheus.Counter
	running, unsettled, breakers prometheus.GaugeFunc
	all                          []prometheus.Collector
}

// laneMetrics are bound to a type once: no look-up per job.
type laneMetrics struct {
	claimed     prometheus.Counter
	pickup, run prometheus.Observer
	settled     map[what]prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "pgbell", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "pgbell", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pgbell", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, first float64, count int) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "pgbell", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(first, 2, count)}, []string{"type"})
	}
	m := &metrics{
		claimed: counters("jobs_claimed_total", "Jobs claimed.", "type"),
		settledJobs: counters("jobs_settled_total", "Attempts by what became of their job. done: completed; retry: failed, runs again; fail: failed for "+
			"good; cancel: cancelled while it ran; snooze, unavailable, back: attempt given back; hold: accepted, settled later.", "type", "outcome"),
		stale:     counter("settles_stale_total", "Outcomes that were refused, because their lease was no longer the job's."),
		reaped:    counter("jobs_reaped_total", "Jobs taken back from dead workers, or past their held_until, by this process."),
		pruned:    counter("jobs_pruned_total", "Finished jobs deleted after their retention, by this process."),
		claimJobs: counter("claim_jobs_total", "Jobs claimed, of all types."),
		walks:     counter("walks_total", "Looks, without locks, for the first job of each type and priority."),
		unannounced: counter("polls_unannounced_total", "Fallback polls that found jobs, due for a second or more, which no ring announced. "+
			"Where triggers are on and listen_url leads to the same database, each is a lost wake-up."),
		wakeups: counters("wakeups_total", "Times that the dispatcher was woken, by what (ring, due: a due time came, poll: the fallback poll, "+
			"freed: a slot was freed), and whether its claim found jobs.", "by", "found"),
		claims:    map[string]prometheus.Counter{},
		unhandled: gauge("unhandled_types", "Types with due jobs that no running sidecar has a handler for, at the last look, at most 1000."),
		deadRows:  gauge("dead_rows", "Dead rows of the jobs table that vacuum has yet to remove, as Postgres counts them, at the last look."),
		horizon: gauge("horizon_age_seconds", "How long the oldest transaction, or prepared one, that may keep vacuum from removing dead "+
			"rows has been open, at the last look, as far as this role may see."),
		horizonBehind: gauge("horizon_age_transactions", "The same in transactions, replication slots and standbys included."),
		pickup:        histogram("job_pickup_seconds", "From due, or inserted if that was later, to the start of the handler.", 0.0005, 20),
		run:           histogram("job_run_seconds", "Run time of handlers.", 0.0005, 24),
		claimSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "pgbell", Name: "claim_seconds",
			Help: "Round trip of a claim.", Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14)}),
	}
	claims := counters("claims_total", "Claims by result. full: took all that there was room for; some; none.", "result")
	for _, result := range []string{"full", "some", "none"} {
		m.claims[result] = claims.WithLabelValues(result)
	}
	for _, by := range []wake{wakeRing, wakeDue, wakePoll, wakeFreed} {
		m.wakeups.WithLabelValues(string(by), "yes")
		m.wakeups.WithLabelValues(string(by), "no")
	}
	m.all = []prometheus.Collector{claims, m.walks, m.wakeups, m.unannounced, m.claimed, m.settledJobs, m.stale, m.reaped, m.pruned, m.claimJobs, m.unhandled, m.pickup, m.run, m.claimSeconds,
		m.deadRows, m.horizon, m.horizonBehind}
	return m
}

// observe adds gauges of what l counts anyway.
func (m *metrics) observe(l *lanes) {
	gauge := func(name, help string, value func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "pgbell", Name: name, Help: help},
			func() float64 { return float64(value()) })
	}
	m.running = gauge("jobs_running", "Attempts running.", l.runs)
	m.unsettled = gauge("jobs_held", "Jobs claimed and not yet settled, running ones included.", l.holds)
	m.breakers = gauge("breakers_open", "Types whose jobs wait because their handler can't be reached.", l.broken)
	m.all = append(m.all, m.running, m.unsettled, m.breakers)
}

func (m *metrics) lane(name string) laneMetrics {
	bound := laneMetrics{
		claimed: m.claimed.WithLabelValues(name), pickup: m.pickup.WithLabelValues(name), run: m.run.WithLabelValues(name),
		settled: map[what]prometheus.Counter{},
	}
	for _, outcome := range []what{whatDone, whatRetry, whatFail, whatSnooze, whatUnavailable, whatBack, whatHold, whatCancel} {
		bound.settled[outcome] = m.settledJobs.WithLabelValues(name, string(outcome))
	}
	return bound
}

func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, one := range m.all {
		one.Describe(to)
	}
}

func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, one := range m.all {
		one.Collect(to)
	}
}

func (m *metrics) claim(jobs, most int, took time.Duration) {
	m.claimSeconds.Observe(took.Seconds())
	m.claimJobs.Add(float64(jobs))
	switch jobs {
	case 0:
		m.claims["none"].Inc()
	case most:
		m.claims["full"].Inc()
	default:
		m.claims["some"].Inc()
	}
}

func (m *metrics) woke(by wake, found bool) {
	answer := "no"
	if found {
		answer = "yes"
	}
	m.wakeups.WithLabelValues(string(by), answer).Inc()
}

func (l laneMetrics) begin(a *attempt, now time.Time) {
	l.claimed.Inc()
	l.pickup.Observe((a.job.lateness + now.Sub(a.answered)).Seconds())
}

func (l laneMetrics) end(took time.Duration) { l.run.Observe(took.Seconds()) }

// settled counts a batch that was written; of its verdicts, written found their job still held by the lease.
func (m *metrics) settled(batch []verdict, written int64) {
	for _, v := range batch {
		if v.what != whatNothing {
			v.attempt.lane.metrics.settled[v.what].Inc()
		}
	}
	if stale := int64(len(batch)) - written; stale > 0 {
		m.stale.Add(float64(stale))
	}
}
