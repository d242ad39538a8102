package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/migrations"
)

// ErrAborted is returned by Run when Config.Abort was closed.
var ErrAborted = errors.New("aborted")

// ConfigError is returned by Run for a Config that can't be used. It says all that is wrong with it.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// Config configures a demo. The zero value of each field stands for its default.
type Config struct {
	// DatabaseURL of a database to use instead of a throwaway server. Defaults to none.
	DatabaseURL string

	// Schema to make, and to drop at the end; it must not exist. On a throwaway server it is public. Defaults to
	// "pgbell_demo".
	Schema string

	// For is how long to insert and run jobs: all that are inserted can end by then. At least 1 s. Defaults to no end: until the
	// context is done.
	For time.Duration

	// Rate of inserted rows a second, 0.1 to 10,000. Defaults to 50.
	Rate float64

	// Seed of what happens to whom. Defaults to a random one.
	Seed uint64

	// View shows what goes on. Defaults to nothing.
	View View

	// Notice gets a line before a step that takes long, such as a download of Postgres. Defaults to stderr.
	Notice func(line string)

	// Abort, when closed, ends the demo at once: Run kills the throwaway server, removes what it has made and returns ErrAborted without
	// waiting for its goroutines. The process should end then. Defaults to never.
	Abort <-chan struct{}

	// Logger gets what the listener and the dispatcher log. Defaults to no log.
	Logger zerolog.Logger
}

func (c Config) resolved() (Config, error) {
	var mistakes []error
	if c.For != 0 && c.For < time.Second {
		mistakes = append(mistakes, fmt.Errorf("for: %s is less than a second", c.For))
	}
	if c.Rate == 0 {
		c.Rate = 50
	}
	if math.IsNaN(c.Rate) || c.Rate < 0.1 || c.Rate > 10_000 {
		mistakes = append(mistakes, fmt.Errorf("rate: %g is not between 0.1 and 10000 rows a second", c.Rate))
	}
	switch {
	case c.DatabaseURL == "" && c.Schema != "" && c.Schema != "public":
		mistakes = append(mistakes, errors.New("schema: the throwaway server has pgbell in public; give a database URL to use another schema"))
	case c.DatabaseURL == "":
		c.Schema = "public"
	case c.Schema == "":
		c.Schema = "pgbell_demo"
	case c.Schema == "public":
		mistakes = append(mistakes, errors.New("schema: public can't be dropped at the end; choose another name, such as pgbell_demo"))
	}
	if err := migrations.CheckSchema(c.Schema); err != nil {
		mistakes = append(mistakes, err)
	} else if strings.Contains(c.Schema, ".") {
		mistakes = append(mistakes, fmt.Errorf("schema %q: the demo needs a name without a dot", c.Schema))
	}
	if _, err := pgx.ParseConfig(c.DatabaseURL); err != nil && c.DatabaseURL != "" {
		mistakes = append(mistakes, errBadURL)
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	if c.View == nil {
		c.View = nothing{}
	}
	if len(mistakes) > 0 {
		return c, &ConfigError{errors.Join(mistakes...)}
	}
	return c, nil
}

// Run runs the demo until ctx is done or its time is over, and removes all that it has made. The Summary is whole where
// the error is nil; a Summary that isn't OK is no error.
func Run(ctx context.Context, config Config) (Summary, error) {
	config, err := config.resolved()
	if err != nil {
		return Summary{}, err
	}
	leftovers := &leftovers{}
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	type outcome struct {
		summary Summary
		err     error
	}
	ended := make(chan outcome, 1)
	go func() {
		summary, err := run(ctx, working, config, leftovers)
		ended <- outcome{summary, errors.Join(err, leftovers.remove())}
	}()
	select {
	case o := <-ended:
		return o.summary, o.err
	case <-config.Abort:
		stopWorking()
		config.View.Close()
		return Summary{}, errors.Join(ErrAborted, leftovers.remove())
	}
}

// run does the work. ctx ends the stream; working is for what has to go on until all is done.
func run(ctx, working context.Context, config Config, leftovers *leftovers) (Summary, error) {
	defer config.View.Close()
	began := time.Now()
	database, err := openDatabase(ctx, config, leftovers)
	if err != nil {
		if ctx.Err() != nil {
			return Summary{OK: config.For == 0, Interrupted: true, Types: map[string]TypeSummary{}, Unexpected: []string{}}, nil
		}
		return Summary{}, err
	}
	s := &show{config: config, database: database, began: began, ledger: newLedger(), journal: &journal{}}
	if s.application, err = newApplication(working, database.home, s.ledger); err != nil {
		return Summary{}, err
	}
	return s.run(ctx, working)
}
