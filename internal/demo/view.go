package demo

import (
	"fmt"
	"strings"
	"time"
)

// View shows a demo. Its methods may be called from any goroutine.
type View interface {
	// Interval is the time between two frames.
	Interval() time.Duration
	// Intro is called once, when the stream begins.
	Intro(Intro)
	// Frame is called with the state of things.
	Frame(Snapshot)
	// Close is called at the end, and may be called more than once. The terminal is as it was before when it returns.
	Close()
}

// Intro is what doesn't change while a demo runs.
type Intro struct {
	Postgres string // version
	Where    string // the jobs are, without secrets
	Psql     string // the command that inserts a job
	Rate     float64
	For      time.Duration
}

// Snapshot is the state of a demo.
type Snapshot struct {
	Phase          string
	Elapsed        time.Duration
	Types          []TypeCounts
	Total          Tally
	Refused        int
	RolledBack     int
	InsertRate     float64 // rows a second, recently
	FinishRate     float64 // jobs a second, recently
	Recent, Pickup Pickup  // of the last 500, and of all
	FirstCompleted time.Duration
	Errors         []string // of jobs, the last is the newest; safe to print
	Visits         []string // of others' jobs, likewise
	Visitors       int      // visits of all time
	Unexpected     []string
}

// TypeCounts has the counts of one job type.
type TypeCounts struct {
	Type, Way string
	Tally
}

func (s *show) intro() Intro {
	return Intro{
		Postgres: s.database.version, Where: s.database.where, Psql: s.database.psql(), Rate: s.config.Rate,
		For: s.config.For,
	}
}

func (s *show) snapshot(now time.Time) Snapshot {
	summary := s.ledger.counts()
	recent, all := s.ledger.pickups(now)
	shot := Snapshot{
		Phase: s.phase, Elapsed: now.Sub(s.streaming), Refused: summary.Refused, RolledBack: summary.RolledBack,
		Recent: recent, Pickup: all, FirstCompleted: s.firstCompleted, Unexpected: summary.Unexpected,
		Total: Tally{Inserted: summary.Inserted, Completed: summary.Completed, Failed: summary.Failed, Retried: summary.Retried},
	}
	for _, way := range ways {
		counts := summary.Types[way.jobType]
		shot.Types = append(shot.Types, TypeCounts{way.jobType, way.way, counts.Tally})
		shot.Total.waiting += counts.waiting
		shot.Total.running += counts.running
	}
	shot.Errors, shot.Visits, shot.Visitors = s.journal.read()
	s.rates.add(now, summary.Inserted, summary.Completed+summary.Failed)
	shot.InsertRate, shot.FinishRate = s.rates.perSecond()
	return shot
}

// rates looks back over the last few frames.
type rates struct{ points []ratePoint }

type ratePoint struct {
	at                 time.Time
	inserted, finished int
}

const rateWindow = 5 * time.Second

func (r *rates) add(at time.Time, inserted, finished int) {
	r.points = append(r.points, ratePoint{at, inserted, finished})
	for len(r.points) > 2 && at.Sub(r.points[1].at) >= rateWindow {
		r.points = r.points[1:]
	}
}

func (r *rates) perSecond() (inserted, finished float64) {
	first, last := r.points[0], r.points[len(r.points)-1]
	passed := last.at.Sub(first.at).Seconds()
	if passed <= 0 {
		return 0, 0
	}
	return float64(last.inserted-first.inserted) / passed, float64(last.finished-first.finished) / passed
}

// nothing shows nothing.
type nothing struct{}

func (nothing) Interval() time.Duration { return time.Hour }
func (nothing) Intro(Intro)             {}
func (nothing) Frame(Snapshot)          {}
func (nothing) Close()                  {}

// text is the intro for people, to be printed once.
func (i Intro) text() string {
	end := "Ctrl-C ends it."
	if i.For > 0 {
		end = fmt.Sprintf("It ends in %s.", i.For)
	}
	version, _, _ := strings.Cut(i.Postgres, " ")
	var text strings.Builder
	fmt.Fprintf(&text, "PostgreSQL %s at %s, %g jobs/s in four ways. %s\n", version, i.Where, i.Rate, end)
	fmt.Fprintf(&text, "Insert one of your own from another terminal, of any type:\n  %s\n\n", i.Psql)
	return text.String()
}
