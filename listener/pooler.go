package listener

import (
	"context"
	"fmt"
)

// poolerError: a connection turns out to lead through a pooler that gives its server processes to all.
type poolerError struct{ given, answered uint32 }

func (e *poolerError) Error() string {
	return fmt.Sprintf("process %d answers for process %d", e.answered, e.given)
}

// meetings are how often two connections look whether they share a server process. A pooler hands out the one that was free last, so
// one look is enough where nobody else is there.
const meetings = 3

// refusePooler returns an error where a transaction pooler stands in between, before a LISTEN stays behind in a server process of its:
// nobody hears there what costs each NOTIFY. A pooler in session mode tells the client another process too, but gives each of two
// connections one of its own. Where it can't be told the canary shows it.
func (l *Listener) refusePooler(ctx context.Context, first *link) error {
	ctx, cancel := context.WithTimeout(ctx, l.config.EchoTimeout)
	defer cancel()
	given := first.conn.PgConn().PID()
	own, err := first.process(ctx)
	if err != nil || own == given {
		return err
	}
	second, err := l.connect(ctx, roleListener)
	if err != nil {
		return nil //nolint:nilerr // the first one stands, and may be in session mode
	}
	defer second.discard(ctx)
	for range meetings {
		other, err := second.process(ctx)
		if err != nil {
			return nil //nolint:nilerr // as above: in session mode there may be no more server processes
		}
		again, err := first.process(ctx)
		if err != nil {
			return err
		}
		if other == own || again != own {
			return &poolerError{given, again}
		}
	}
	return nil
}

// process asks which process of the server answers.
func (c *link) process(ctx context.Context) (pid uint32, err error) {
	if err := c.conn.QueryRow(ctx, sqlProcess).Scan(&pid); err != nil {
		return 0, fmt.Errorf("ask for the server process: %w", err)
	}
	return pid, nil
}
