package listener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	minTakePause = time.Millisecond
	maxTakePause = 100 * time.Millisecond
	// The pause between two looks at U's holders is an eighth of the time waited so far, within these.
	minLookPause = 2 * time.Millisecond
	maxLookPause = 2 * time.Second
	// longHolder: a transaction that holds U for that long is named.
	longHolder = 5 * time.Second
)

// sleepersKeys are the second keys of S.
func sleepersKeys() []int32 { return []int32{-8, -7, -6, -5, -4, -3, -2, -1} }

// sleepers is the lock S as the bell connection holds it, and whom it waits for.
type sleepers struct {
	jobs     uint32  // oid in the keys; 0 while none is held
	held     []int32 // second keys that are
	all      bool    // and everything was done for slumber to know it
	firstTry time.Time
	tryAt    time.Time
	pause    time.Duration
	accused  bool // the log says who keeps S from being taken
	since    time.Time
	holders  map[string]int32 // transactions to wait for, and their processes
	lookAt   time.Time
	named    string          // the one that Health names
	logged   map[string]bool // those that the log has named
}

// keepSleepers brings S in line with what Sleep asked for, and watches those that held U when it was taken.
func (b *bell) keepSleepers(ctx context.Context) error {
	s := &b.sleepers
	heard, _ := b.hearing.now()
	moved := s.jobs != 0 && b.jobs != s.jobs
	if !b.slumber.shouldHold(heard && !moved) {
		return b.releaseSleepers(ctx)
	}
	now := time.Now()
	switch {
	case !s.all && !now.Before(s.tryAt):
		return b.takeSleepers(ctx)
	case s.all && len(s.holders) > 0 && !now.Before(s.lookAt):
		return b.lookAtHolders(ctx)
	}
	return nil
}

// nextSleepers is when keepSleepers has something to do, zero if nothing.
func (s *sleepers) next(wanted bool) time.Time {
	switch {
	case !wanted:
		return time.Time{}
	case !s.all:
		return s.tryAt
	case len(s.holders) > 0:
		return s.lookAt
	}
	return time.Time{}
}

func (b *bell) releaseSleepers(ctx context.Context) error {
	s := &b.sleepers
	if len(s.held) > 0 {
		statement, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
		defer cancel()
		var done bool
		if err := b.link.conn.QueryRow(statement, sqlReleaseSleepers, int32(s.jobs), s.held).Scan(&done); err != nil {
			return fmt.Errorf("release sleepers' lock: %w", err)
		}
	}
	*s = sleepers{logged: s.logged, accused: s.accused}
	return nil
}

// takeSleepers takes S, as far as no insert is just probing it, and then sees who holds U.
func (b *bell) takeSleepers(ctx context.Context) error {
	s := &b.sleepers
	statement, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
	defer cancel()
	if b.jobs != 0 {
		s.jobs = b.jobs
		missing := slices.DeleteFunc(sleepersKeys(), func(key int32) bool { return slices.Contains(s.held, key) })
		var taken []int32
		if err := b.link.conn.QueryRow(statement, sqlTakeSleepers, int32(s.jobs), missing).Scan(&taken); err != nil {
			return fmt.Errorf("take sleepers' lock: %w", err)
		}
		s.held = append(s.held, taken...)
		if len(s.held) < len(sleepersKeys()) {
			if s.pause == 0 {
				s.firstTry = time.Now()
			}
			s.pause = min(max(2*s.pause, minTakePause), maxTakePause)
			s.tryAt = time.Now().Add(s.pause)
			return b.accuse(statement)
		}
		s.accused = false
	}
	var free bool
	err := b.link.conn.QueryRow(statement, sqlUnannounced, b.config.Schema).Scan(&b.jobs, &free)
	if errors.Is(err, pgx.ErrNoRows) {
		b.jobs = 0
		s.tryAt = time.Now().Add(lockPause)
		return nil
	}
	if err != nil {
		return fmt.Errorf("try lock of unannounced transactions: %w", err)
	}
	if b.jobs != s.jobs {
		err := b.releaseSleepers(ctx) // another table now: once more
		s.tryAt = time.Now()
		return err
	}
	s.since = time.Now()
	if !free {
		if s.holders, err = b.readHolders(statement); err != nil {
			return err
		}
	}
	s.all, s.lookAt = true, time.Now().Add(minLookPause)
	b.slumber.taken(len(s.holders) > 0, s.since)
	return nil
}

// accuse says in the log, once, which session has kept a key of S for itself for long. No insert's probe does.
func (b *bell) accuse(ctx context.Context) error {
	s := &b.sleepers
	if s.accused || time.Since(s.firstTry) < longHolder {
		return nil
	}
	var process int32
	var application string
	err := b.link.conn.QueryRow(ctx, sqlIntruder, s.jobs).Scan(&process, &application)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("name holder of sleepers' lock: %w", err)
	}
	s.accused = true
	b.logger.Warn().Int32("pid", process).Str("application_name", application).
		Msg("a session holds the sleepers' lock for itself: polling instead of sleeping until it lets go")
	return nil
}

// lookAtHolders sees which of those that held U still do.
func (b *bell) lookAtHolders(ctx context.Context) error {
	s := &b.sleepers
	statement, cancel := context.WithTimeout(ctx, b.config.EchoTimeout)
	defer cancel()
	present, err := b.readHolders(statement)
	if err != nil {
		return err
	}
	left, ended := remaining(s.holders, present)
	s.holders = left
	waited := time.Since(s.since)
	s.lookAt = time.Now().Add(min(max(waited/8, minLookPause), maxLookPause))
	if ended || len(left) == 0 {
		b.slumber.ended(len(left) == 0, time.Now())
	}
	if waited < longHolder {
		return nil
	}
	return b.nameHolder(statement, waited)
}

// remaining returns those of before that are still present, and whether any has ended. Being prepared may change a
// transaction's name, so that each prepared one may be one of before.
func remaining(before, present map[string]int32) (left map[string]int32, ended bool) {
	left = map[string]int32{}
	for name, process := range present {
		if _, known := before[name]; known || process == 0 {
			left[name] = process
		}
	}
	for name := range before {
		if _, there := left[name]; !there {
			ended = true
		}
	}
	return left, ended
}

func (b *bell) readHolders(ctx context.Context) (map[string]int32, error) {
	// The error is in the rows.
	rows, _ := b.link.conn.Query(ctx, sqlHolders, b.sleepers.jobs)
	holders := map[string]int32{}
	var name string
	var process int32
	if _, err := pgx.ForEachRow(rows, []any{&name, &process}, func() error {
		holders[name] = process
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read holders of unannounced lock: %w", err)
	}
	return holders, nil
}

// nameHolder says who keeps U for long: in Health one for as long as it lasts, and then another, each once in the log. One at a
// time, as there may be hundreds.
func (b *bell) nameHolder(ctx context.Context, waited time.Duration) error {
	s := &b.sleepers
	if _, lasts := s.holders[s.named]; lasts || len(s.holders) == 0 {
		return nil
	}
	name := slices.Min(slices.Collect(maps.Keys(s.holders)))
	process, application := s.holders[name], ""
	err := b.link.conn.QueryRow(ctx, sqlSession, process).Scan(&application)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("name holder of unannounced lock: %w", err)
	}
	who := fmt.Sprintf("process %d (%s)", process, application)
	if process == 0 {
		who = "a prepared transaction"
	}
	s.named = name
	b.slumber.heldUpBy(who)
	if s.logged[name] {
		return nil
	}
	maps.DeleteFunc(s.logged, func(name string, _ bool) bool { _, lasts := s.holders[name]; return !lasts })
	s.logged[name] = true
	b.logger.Warn().Int32("pid", process).Str("application_name", application).Dur("waited_ms", waited).Int("transactions", len(s.holders)).
		Msg("a transaction that has inserted jobs is open for long: they run when it ends")
	return nil
}
