package dispatch

import (
	"math/rand/v2"
	"time"
)

// watchEvery is how often to look after what needs no haste: types without a handler, dead rows, the turn to prune, workers
// that are long gone. It goes with a survey of the reaper's, in the same transaction.
const watchEvery = time.Minute

// watch is what the surveys of this process remember of it.
type watch struct {
	due     time.Time
	holders map[string]*sighting // of the horizon
}

// again puts the next time off, by a little less than a minute: a survey that comes once a minute brings it along.
func (w *watch) again(now time.Time) {
	w.due = now.Add(watchEvery - time.Second - rand.N(watchEvery/10))
}

// unhandledNamed is how many unhandled types are named in the log.
const unhandledNamed = 10

// warnUnhandled tells of due jobs whose type has no handler in any living worker.
func (d *Dispatcher) warnUnhandled(types []string) {
	d.metrics.unhandled.Set(float64(len(types)))
	if len(types) > 0 {
		d.log.Warn().Strs("types", types[:min(len(types), unhandledNamed)]).Int("count", len(types)).
			Msg("jobs are due whose type no running sidecar has a handler for: they stay pending")
	}
}
