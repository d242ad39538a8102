package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// drainLimit is how long the last jobs may take beyond their time, drainInterrupted after an interrupt.
	drainLimit       = 20 * time.Second
	drainInterrupted = 1500 * time.Millisecond
)

// show is one run of the demo, on a database that is ready.
type show struct {
	config      Config
	database    database
	ledger      *ledger
	journal     *journal
	application *application

	began          time.Time // Run was called
	streaming      time.Time // the stream began
	ended          time.Time // the last job was seen to have ended
	firstCompleted time.Duration
	rates          rates
	phase          string
}

func (s *show) run(ctx, working context.Context) (Summary, error) {
	applying, stopApplication := context.WithCancel(working)
	defer stopApplication()
	application := start(func() error { return s.application.run(applying) })
	err := s.runSidecar(ctx, working)
	// Only now is no script left that could write to the application's pipe.
	stopApplication()
	if err = errors.Join(err, application.wait()); err != nil {
		return Summary{}, err
	}
	return s.conclude(ctx, working)
}

func (s *show) runSidecar(ctx, working context.Context) error {
	sidecar, err := newSidecar(working, s.database, s.application, s.journal, s.config.Logger)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(working)
	defer stop()
	dispatching := start(func() error { return sidecar.run(running) })
	err = s.watch(ctx, working, sidecar, dispatching.done)
	stop()
	return errors.Join(err, dispatching.wait())
}

// watch runs the stream, and returns when its jobs have ended or won't be waited for.
func (s *show) watch(ctx, working context.Context, sidecar *sidecar, failed <-chan struct{}) error {
	if err := sidecar.awaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	audit, err := s.newAudit(working)
	if err != nil {
		return err
	}
	defer closeConn(audit.conn)
	conn, err := s.database.connect(working)
	if err != nil {
		return fmt.Errorf("connect the stream: %w", err)
	}
	defer closeConn(conn)
	stream := &stream{conn: conn, sql: newStatements(s.database.schema), plan: newPlan(s.config.Seed), ledger: s.ledger, rate: s.config.Rate}

	s.streaming, s.phase = time.Now(), "running"
	s.rates.add(s.streaming, 0, 0)
	s.config.View.Intro(s.intro())
	inserting, stopInserting := context.WithCancel(ctx)
	defer stopInserting()
	streaming := start(func() error { return stream.run(inserting, s.config.For) })
	err = s.follow(ctx, working, audit, streaming, failed)
	stopInserting()
	return errors.Join(err, streaming.wait())
}

// follow looks and shows until the stream has ended, and its jobs too.
func (s *show) follow(ctx, working context.Context, audit *audit, streaming *task, failed <-chan struct{}) error {
	inserted := streaming.done
	interrupted := ctx.Done()
	look, frame := time.NewTimer(0), time.NewTicker(s.config.View.Interval())
	defer look.Stop()
	defer frame.Stop()
	deadline := time.NewTimer(math.MaxInt64)
	defer deadline.Stop()
	for {
		select {
		case <-interrupted:
			interrupted = nil
			s.phase = "stopping (Ctrl-C again: at once)"
			deadline.Reset(drainInterrupted)
			s.config.View.Frame(s.snapshot(time.Now()))
		case <-inserted:
			inserted = nil
			if streaming.err != nil {
				return nil // the caller's to find, too
			}
			if ctx.Err() == nil {
				s.phase = "waiting for the last jobs"
				deadline.Reset(drainLimit)
			}
		case <-failed:
			return nil // its error is the caller's to find
		case <-deadline.C:
			return nil
		case <-look.C:
			if err := s.look(working, audit); err != nil {
				return err
			}
			if inserted == nil && s.ledger.openCount() == 0 {
				return nil
			}
			look.Reset(s.lookEvery())
		case <-frame.C:
			s.config.View.Frame(s.snapshot(time.Now()))
		}
	}
}

func (s *show) lookEvery() time.Duration {
	if s.firstCompleted == 0 {
		return auditEagerly
	}
	return auditEvery
}

func (s *show) look(working context.Context, audit *audit) error {
	if err := audit.look(working); err != nil {
		return err
	}
	now := time.Now()
	s.ended = now
	if s.firstCompleted == 0 && s.ledger.completed() > 0 {
		s.firstCompleted = now.Sub(s.began)
	}
	return audit.letGo(working, now)
}

func (s *show) newAudit(ctx context.Context) (*audit, error) {
	conn, err := s.database.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect the audit: %w", err)
	}
	return &audit{conn: conn, sql: newStatements(s.database.schema), ledger: s.ledger}, nil
}

// conclude compares everything, now that nothing runs any more.
func (s *show) conclude(ctx, working context.Context) (Summary, error) {
	audit, err := s.newAudit(working)
	if err != nil {
		return Summary{}, err
	}
	defer closeConn(audit.conn)
	interrupted := ctx.Err() != nil
	if _, err := audit.finish(working, !interrupted); err != nil {
		return Summary{}, err
	}
	summary := s.ledger.summary()
	summary.OK = summary.UnexpectedCount == 0 && (s.config.For == 0 || summary.Unfinished == 0 && !interrupted)
	summary.Interrupted = interrupted
	summary.FirstCompletedS = seconds(s.firstCompleted)
	if !s.streaming.IsZero() {
		summary.DurationS = seconds(s.ended.Sub(s.streaming))
	}
	summary.Postgres = s.database.version
	_, _, summary.Others = s.journal.read()
	s.config.View.Frame(s.snapshot(time.Now()))
	return summary, nil
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
