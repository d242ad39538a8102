package listener

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// maxAwakeAbove bounds the memory that the rate of rings takes.
const maxAwakeAbove = 1e6

// maxSchema is what NAMEDATALEN leaves for the schema in a channel name.
const maxSchema = 63 - len(channelPrefix)

// Config configures a Listener. The zero value of each field stands for its default.
type Config struct {
	// URL of the database, or its keyword=value form; what it leaves out comes from the PG* environment variables. It must
	// lead to the server itself or to a pooler in session mode. Only used without ConnConfig.
	URL string

	// ConnConfig is used instead of URL. It must come from pgx.ParseConfig.
	ConnConfig *pgx.ConnConfig

	// Schema that pgbell is installed in, at most 56 bytes. Defaults to "public".
	Schema string

	// ApplicationName begins the application_name of both connections, which end in " listener" and " bell". Defaults to
	// "pgbell".
	ApplicationName string

	// CanaryInterval is the time from one canary to the next; after something was heard it is 12 s at most, so as to see
	// how full the server's queue of notifications is. Each is two transactions, its own and its delivery. Defaults to 60 s.
	CanaryInterval time.Duration

	// PingInterval is the time from a canary or a ping of both connections to the next ping, which is no transaction.
	// Defaults to 10 s.
	PingInterval time.Duration

	// EchoTimeout is how long an echo, a ping, and any statement of the bell connection, may take. With the shorter of
	// PingInterval and CanaryInterval it bounds how late deafness is noticed. Defaults to 3 s.
	EchoTimeout time.Duration

	// ReconnectMin is the delay before a lost connection is made anew for the first time. It doubles with each failure, is
	// spread by half of itself either way, and starts again once the bell was heard for ReconnectMax. Defaults to 100 ms.
	ReconnectMin time.Duration

	// ReconnectMax is the longest such delay. Defaults to 5 s.
	ReconnectMax time.Duration

	// AwakeAbove is the rate of rings per second, taken over 100 ms, above which the Listener lets inserts be silent, and
	// Sleep polls instead. It must lie below what the slowest disk can notify, about 500. Defaults to 300.
	AwakeAbove float64

	// PollAwake is the interval of these polls. It doubles after each 8 that have found nothing. Defaults to 1 ms.
	PollAwake time.Duration

	// PollAwakeMax is the longest such interval. Defaults to 25 ms.
	PollAwakeMax time.Duration

	// Quiet is how long polls must have found nothing before the Listener falls asleep. After a sleep that the rate of
	// rings has ended within 200 ms the next one waits at least four times as long as the last time. Defaults to 20 ms.
	Quiet time.Duration

	// QuietMax is the longest such wait: a flood of jobs of other types than the caller's is sampled that often. Defaults to
	// 10 s.
	QuietMax time.Duration

	// Logger gets one line at warn when the bell is no longer heard, one more for each further kind of cause, and one at
	// info when it is heard again; and one at warn for each session that keeps sidecars from sleeping, or jobs waiting, for
	// long. Defaults to no log.
	Logger zerolog.Logger
}

// resolved returns a copy with the defaults filled in and the connection's configuration parsed.
func (c Config) resolved() (Config, error) {
	var mistakes []error
	c.Schema = cmp.Or(c.Schema, "public")
	if len(c.Schema) > maxSchema || strings.ContainsRune(c.Schema, 0) {
		mistakes = append(mistakes, fmt.Errorf("invalid Schema %.80q: at most %d bytes, none of them zero", c.Schema, maxSchema))
	}
	c.ApplicationName = cmp.Or(c.ApplicationName, "pgbell")
	for _, duration := range []struct {
		name     string
		value    *time.Duration
		fallback time.Duration
	}{
		{"CanaryInterval", &c.CanaryInterval, time.Minute},
		{"PingInterval", &c.PingInterval, 10 * time.Second},
		{"EchoTimeout", &c.EchoTimeout, 3 * time.Second},
		{"ReconnectMin", &c.ReconnectMin, 100 * time.Millisecond},
		{"ReconnectMax", &c.ReconnectMax, 5 * time.Second},
		{"PollAwake", &c.PollAwake, time.Millisecond},
		{"PollAwakeMax", &c.PollAwakeMax, 25 * time.Millisecond},
		{"Quiet", &c.Quiet, 20 * time.Millisecond},
		{"QuietMax", &c.QuietMax, 10 * time.Second},
	} {
		if *duration.value < 0 {
			mistakes = append(mistakes, fmt.Errorf("invalid %s %s: must be positive", duration.name, *duration.value))
		}
		*duration.value = cmp.Or(*duration.value, duration.fallback)
	}
	if !(c.AwakeAbove >= 0 && c.AwakeAbove <= maxAwakeAbove) { // not a number is neither
		mistakes = append(mistakes, fmt.Errorf("invalid AwakeAbove %g: must be positive and at most %g", c.AwakeAbove, float64(maxAwakeAbove)))
	}
	c.AwakeAbove = cmp.Or(c.AwakeAbove, 300)
	c.PollAwakeMax, c.QuietMax = max(c.PollAwakeMax, c.PollAwake), max(c.QuietMax, c.Quiet)
	if c.ReconnectMax < c.ReconnectMin {
		mistakes = append(mistakes, fmt.Errorf("invalid ReconnectMax %s: must be at least ReconnectMin, %s", c.ReconnectMax, c.ReconnectMin))
	}
	connConfig, err := c.connConfig()
	if err != nil {
		mistakes = append(mistakes, err)
	}
	c.ConnConfig = connConfig
	return c, errors.Join(mistakes...)
}

func (c Config) connConfig() (*pgx.ConnConfig, error) {
	if c.ConnConfig != nil {
		if c.URL != "" {
			return nil, errors.New("invalid URL: leave it empty where ConnConfig is given")
		}
		// pgx panics when it connects with one that was put together by hand.
		if c.ConnConfig.DialFunc == nil || c.ConnConfig.LookupFunc == nil || c.ConnConfig.BuildFrontend == nil {
			return nil, errors.New("invalid ConnConfig: it must come from pgx.ParseConfig")
		}
		return c.ConnConfig.Copy(), nil
	}
	connConfig, err := pgx.ParseConfig(c.URL)
	if err != nil {
		// The parser's message quotes parts of what it was given, and a mistake often stands next to the password.
		return nil, errors.New("invalid URL: write postgres://user:password@host:5432/database, or host=... user=... dbname=..., " +
			"with special characters in the password percent-encoded in the former and quoted in the latter")
	}
	return connConfig, nil
}
