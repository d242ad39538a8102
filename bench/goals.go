package main

import (
	"fmt"
	"strings"
)

// goal is a bar that a ratio of two medians of one run, or a median itself, is held against.
type goal struct {
	// text says what is compared.
	text string
	own  reference
	// to is what own is divided by; nothing means that own is held against the bar itself.
	to   *reference
	bar  float64
	most bool // at most the bar; else at least
}

// reference is a median in the results.
type reference struct {
	scenario, figure string
	// system by its name; or the best of a role.
	system string
	role   role
}

// verdict is a goal with what was measured.
type verdict struct {
	Goal     string  `json:"goal"`
	Measured string  `json:"measured"`
	Value    float64 `json:"value"`
	Bar      string  `json:"bar"`
	Met      bool    `json:"met"`
}

func (v verdict) said() string {
	if v.Met {
		return "met"
	}
	return "**missed**"
}

func own(scenario, figure string) reference {
	return reference{scenario: scenario, figure: figure, role: ours}
}

func best(scenario, figure string, role role) *reference {
	return &reference{scenario: scenario, figure: figure, role: role}
}

func named(scenario, figure, system string) reference {
	return reference{scenario: scenario, figure: figure, system: system}
}

// goals in the order of their rows.
func goals() []goal {
	other := named("producers_32", "inserts_per_second", pgbell{kind: "other"}.name())
	nothing := named("producers_32", "inserts_per_second", nothingTrigger)
	none := named("producers_32", "inserts_per_second", noTrigger)
	all := []goal{
		{text: "drain / the best peer", own: own("drain", "jobs_per_second"), to: best("drain", "jobs_per_second", peer), bar: 2},
		{text: "drain / floor", own: own("drain", "jobs_per_second"), to: best("drain", "jobs_per_second", floor), bar: 0.8},
		{
			text: "drain with rows deleted / graphile-worker", own: own("drain_deleted", "jobs_per_second"),
			to: best("drain_deleted", "jobs_per_second", peer), bar: 1.3,
		},
		{text: "pickup p50, idle / floor", own: own("pickup_idle", "p50"), to: best("pickup_idle", "p50", floor), bar: 1.2, most: true},
		{text: "pickup p99, idle / floor", own: own("pickup_idle", "p99"), to: best("pickup_idle", "p99", floor), bar: 1.2, most: true},
		{text: "pickup p50, idle / the best peer", own: own("pickup_idle", "p50"), to: best("pickup_idle", "p50", peer), bar: 1, most: true},
		{text: "pickup p99, idle / the best peer", own: own("pickup_idle", "p99"), to: best("pickup_idle", "p99", peer), bar: 1, most: true},
		{text: "pickup p50 at 1,000 inserts/s / the best peer", own: own("pickup_1000", "p50"), to: best("pickup_1000", "p50", peer), bar: 0.7, most: true},
		{text: "pickup p99 at 1,000 inserts/s / the best peer", own: own("pickup_1000", "p99"), to: best("pickup_1000", "p99", peer), bar: 0.7, most: true},
		{text: "inserts/s reached of 1,000", own: own("pickup_1000", "inserts_per_second"), bar: 980},
		{text: "ms of pickup p99 at 4,000 inserts/s", own: own("pickup_4000", "p99"), bar: 10, most: true},
		{text: "inserts/s reached of 4,000", own: own("pickup_4000", "inserts_per_second"), bar: 3900},
		{text: "inserts by 32 clients, sidecar for another type / trigger that does nothing", own: other, to: &nothing, bar: 0.9},
		{text: "inserts by 32 clients, sidecar for another type / no trigger", own: other, to: &none, bar: 0.7},
		{
			text: "inserts by 32 clients, jobs running / the best rate that a peer sustains",
			own:  named("producers_32", "inserts_per_second", pgbell{concurrency: 1000}.name()), to: best("producers_32", "sustained_per_second", peer), bar: 2.5,
		},
		{text: "seconds of backlog after it", own: named("producers_32", "backlog_seconds", pgbell{concurrency: 1000}.name()), bar: 1, most: true},
		{text: "ms of lateness p50 of delayed jobs", own: own("delayed", "p50"), bar: 1.5, most: true},
		{text: "ms of lateness p99 of delayed jobs", own: own("delayed", "p99"), bar: 5, most: true},
		{text: "held horizon: last tenth / first tenth", own: own("held_horizon", "kept"), bar: 0.8},
	}
	for _, c := range flatCases() {
		if c.name != smallTable {
			small := named("flat", "claim", smallTable)
			all = append(all, goal{text: "claim time, " + c.name + " / small table", own: named("flat", "claim", c.name), to: &small, bar: 1.3, most: true})
		}
	}
	return append(all,
		goal{text: "transactions/min of an idle sidecar", own: own("idle", "transactions"), bar: 10, most: true},
		goal{text: "% of a CPU of an idle sidecar", own: own("idle", "cpu"), bar: 0.1, most: true},
		goal{text: "MB of an idle sidecar", own: own("idle", "memory"), bar: 20, most: true},
		goal{text: "webhook jobs/s", own: own("webhook", "jobs_per_second"), bar: 5000},
		goal{text: "ms from pickup to request sent, p50", own: own("webhook", "sent_p50"), bar: 1, most: true},
		goal{text: "wasted claims per job, 8 sidecars", own: named("fleet_lone", "wasted", allHandle), bar: 2, most: true},
		goal{text: "wasted claims per job, 7 of 8 without a handler", own: named("fleet_lone", "wasted", oneHandles), bar: 2, most: true},
	)
}

// judge holds what was measured against the goals. Goals whose figures were not measured are left out.
func judge(r results) []verdict {
	var all []verdict
	for _, g := range goals() {
		value, name, ok := r.resolve(g.own)
		if !ok {
			continue
		}
		v := verdict{Goal: g.text, Value: value, Measured: inDigits(value), Bar: fmt.Sprintf("at least %g", g.bar)}
		if g.to != nil {
			against, other, ok := r.resolve(*g.to)
			if !ok || against == 0 {
				continue
			}
			v.Value = value / against
			v.Measured = fmt.Sprintf("%.2f (%s %s, %s %s)", v.Value, name, inDigits(value), other, inDigits(against))
		}
		v.Met = v.Value >= g.bar
		if g.most {
			v.Met, v.Bar = v.Value <= g.bar, strings.Replace(v.Bar, "at least", "at most", 1)
		}
		all = append(all, v)
	}
	return all
}

// inDigits is a figure without an exponent.
func inDigits(value float64) string {
	if value >= 100 {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.2f", value)
}

func (r results) resolve(ref reference) (value float64, system string, found bool) {
	for _, report := range r.Scenarios {
		if report.Scenario != ref.scenario {
			continue
		}
		for _, figure := range report.Figures {
			if figure.Name == ref.figure && ref.system == "" {
				return report.best(figure, ref.role)
			}
		}
		for _, system := range report.Systems {
			if system.Name == ref.system {
				s, ok := system.spread(ref.figure)
				return s.median, system.Name, ok
			}
		}
	}
	return 0, "", false
}
