package dispatch

import (
	"fmt"
	"time"
)

const (
	deadRowsMany  = 10_000           // and a fiftieth of the live ones: more than vacuum lets lie anyway
	horizonOpen   = time.Minute      // a transaction that has been open for less is left out
	horizonRemind = 15 * time.Minute // of a holder that was named
	holdersNamed  = 3                // at a time
)

// sighting is what is remembered of a holder.
type sighting struct {
	first time.Time
	named time.Time // zero: not yet
	last  time.Time
}

// warnHorizon names what keeps vacuum from removing dead rows, once they are many: each holder once, and again now and then.
func (d *Dispatcher) warnHorizon(w *watch, report HorizonReport, now time.Time) {
	d.metrics.deadRows.Set(float64(report.DeadRows))
	many := report.DeadRows > deadRowsMany+report.LiveRows/50
	var open time.Duration
	var behind int64
	named := 0
	if w.holders == nil {
		w.holders = map[string]*sighting{}
	}
	for _, h := range report.Holders {
		open, behind = max(open, h.Open), max(behind, h.Transactions)
		key := fmt.Sprint(h.Kind, h.PID, h.Name, h.transaction)
		seen := w.holders[key]
		if seen == nil {
			seen = &sighting{first: now}
			w.holders[key] = seen
		}
		seen.last = now
		if !many || named == holdersNamed || max(h.Open, now.Sub(seen.first)) < horizonOpen ||
			!seen.named.IsZero() && now.Sub(seen.named) < horizonRemind {
			continue
		}
		named++
		seen.named = now
		d.nameHolder(report, h)
	}
	for key, seen := range w.holders {
		if seen.last != now {
			delete(w.holders, key)
		}
	}
	d.metrics.horizon.Set(open.Seconds())
	d.metrics.horizonBehind.Set(float64(behind))
}

func (d *Dispatcher) nameHolder(report HorizonReport, h Holder) {
	line := d.log.Warn().Int64("dead_rows", report.DeadRows).Str("kind", h.Kind).Str("name", h.Name).Str("user", h.User).
		Str("client", h.Client).Str("state", h.State).Int32("pid", h.PID).Int64("transactions", h.Transactions).
		Dur("open_ms", h.Open).Dur("statement_ms", h.Statement).Str("hint", h.Mend())
	if h.Hidden {
		line.Msg("dead rows pile up, and this session, of which the role may not see more, may keep vacuum from removing them")
		return
	}
	line.Msg("dead rows pile up, and this keeps vacuum from removing them")
}
