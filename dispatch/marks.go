package dispatch

import (
	"bytes"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// marks remember, while a backlog is drained, which types and priorities it has and where the claims of each have stopped,
// so that the next ones needn't pass all the entries that these have left dead in the index. They are for as long as claims
// come back full, and for marksFor at most: they miss new types and priorities, rows that became due at a place before
// them, and rows that somebody had locked and let go of. A claim by marks that doesn't come back full says nothing, and is
// followed by one without.
//
// Only claimLoop uses them.
type marks struct {
	levels map[level]place
	since  time.Time
}

const (
	// marksFor bounds how late a claim can be for what marks miss.
	marksFor = 250 * time.Millisecond
	// maxLevels of a backlog that marks are kept for.
	maxLevels = 64
)

// level is a type and a priority, place one in their order.
type level struct {
	jobType  string
	priority int
}

// place is the due time and id of a job; the zero place is before all.
type place struct {
	due time.Time
	id  pgtype.UUID
}

func (p place) before(other place) bool {
	if c := p.due.Compare(other.due); c != 0 {
		return c < 0
	}
	return bytes.Compare(p.id.Bytes[:], other.id.Bytes[:]) < 0
}

// forget all of it: the next claim goes without.
func (m *marks) forget() { m.levels = nil }

// known: a backlog is being drained.
func (m *marks) known() bool { return len(m.levels) > 0 }

// begin with the levels that a backlog has.
func (m *marks) begin(levels []level, now time.Time) {
	m.levels, m.since = make(map[level]place, len(levels)), now
	for _, each := range levels {
		m.levels[each] = place{}
	}
}

// note what a claim has taken.
func (m *marks) note(claimed []Job) {
	for i := range claimed {
		job := &claimed[i]
		key, at := level{job.Type, job.Priority}, place{job.ScheduledFor, job.id}
		if last, ok := m.levels[key]; ok && last.before(at) {
			m.levels[key] = at
		}
	}
}

// markedClaim is what a claim by marks sends.
type markedClaim struct {
	types      []string // each with the most of it
	most       []int32
	slots      int
	levelTypes []string // each with a priority and the place after which to claim
	priorities []int32
	dues       []pgtype.Timestamptz
	ids        []pgtype.UUID
}

// claim returns what to claim by marks, if they hold for all that there is room for.
func (m *marks) claim(w wants, now time.Time) (c markedClaim, ok bool) {
	if !m.known() || now.Sub(m.since) > marksFor {
		return c, false
	}
	c.slots = w.slots
	others := 0
	for key, at := range m.levels {
		due, id := pgtype.Timestamptz{Time: at.due, Valid: true}, at.id
		if at == (place{}) {
			due, id = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}, pgtype.UUID{Valid: true}
		}
		room := 0
		if i := slices.Index(w.types, key.jobType); i >= 0 {
			room = int(w.most[i])
		} else if w.wildcard && !slices.Contains(w.others, key.jobType) {
			room = w.any
		}
		if room == 0 {
			continue
		}
		if !slices.Contains(c.types, key.jobType) {
			c.types, c.most = append(c.types, key.jobType), append(c.most, int32(room))
			if !slices.Contains(w.types, key.jobType) {
				others++
			}
		}
		c.levelTypes, c.priorities = append(c.levelTypes, key.jobType), append(c.priorities, int32(key.priority))
		c.dues, c.ids = append(c.dues, due), append(c.ids, id)
	}
	switch others {
	case 0:
	case len(c.types):
		c.slots = min(c.slots, w.any) // the limit of the default handler is one for all of them
	default:
		return c, false
	}
	return c, len(c.types) > 0
}
