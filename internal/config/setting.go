package config

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/migrations"
)

// setting is a scalar key outside handlers: it can be given in the file, by a variable and by some by a flag.
type setting struct {
	key string
	// target points to a string, an int or a time.Duration.
	target func(*Config) any
	// check says what is wrong with the value that the target has then. May be nil.
	check func(*Config) error
	// aliases are variables beside the one that follows from the key.
	aliases []string
	// secret: shown by Redact alone, and may be read from the file that <variable>_FILE names.
	secret bool
}

// settings in the order in which they are shown.
var settings = []setting{
	{key: "database.url", secret: true, aliases: []string{"DATABASE_URL"},
		target: func(c *Config) any { return &c.Database.URL },
		check:  func(c *Config) error { return checkURL(c.Database.URL) }},
	{key: "database.listen_url", secret: true, aliases: []string{"PGBELL_LISTEN_URL"},
		target: func(c *Config) any { return &c.Database.ListenURL },
		check:  func(c *Config) error { return checkURL(c.Database.ListenURL) }},
	{key: "database.schema", aliases: []string{"PGBELL_SCHEMA"},
		target: func(c *Config) any { return &c.Database.Schema },
		check:  func(c *Config) error { return checkSchema(c.Database.Schema) }},
	{key: "database.max_conns",
		target: func(c *Config) any { return &c.Database.MaxConns },
		check:  func(c *Config) error { return between(c.Database.MaxConns, LeastConns, maxConcurrency) }},
	{key: "concurrency",
		target: func(c *Config) any { return &c.Concurrency },
		check:  func(c *Config) error { return between(c.Concurrency, 1, maxConcurrency) }},
	{key: "http.addr",
		target: func(c *Config) any { return &c.HTTP.Addr },
		check:  func(c *Config) error { return checkAddr(c.HTTP.Addr) }},
	{key: "log.level",
		target: func(c *Config) any { return &c.Log.Level },
		check:  func(c *Config) error { return oneOf(c.Log.Level, "trace", "debug", "info", "warn", "error") }},
	{key: "log.format",
		target: func(c *Config) any { return &c.Log.Format },
		check:  func(c *Config) error { return oneOf(c.Log.Format, "auto", "json", "console") }},
	{key: "poll",
		target: func(c *Config) any { return &c.Poll },
		check:  func(c *Config) error { return durationBetween(c.Poll, 100*time.Millisecond, day) }},
	{key: "lease_time",
		target: func(c *Config) any { return &c.LeaseTime },
		check:  func(c *Config) error { return durationBetween(c.LeaseTime, time.Second, time.Hour) }},
	{key: "dead_after",
		target: func(c *Config) any { return &c.DeadAfter },
		check:  func(c *Config) error { return durationBetween(c.DeadAfter, 100*time.Millisecond, time.Hour) }},
	{key: "manual_lease",
		target: func(c *Config) any { return &c.ManualLease },
		check:  func(c *Config) error { return durationBetween(c.ManualLease, time.Second, 30*day) }},
	{key: "shutdown_grace",
		target: func(c *Config) any { return &c.ShutdownGrace },
		check:  func(c *Config) error { return durationBetween(c.ShutdownGrace, 0, day) }},
	{key: "retention.completed",
		target: func(c *Config) any { return (*retention)(&c.Retention.Completed) }},
	{key: "retention.failed",
		target: func(c *Config) any { return (*retention)(&c.Retention.Failed) }},
	{key: "retention.cancelled",
		target: func(c *Config) any { return (*retention)(&c.Retention.Cancelled) }},
}

const maxConcurrency = 10_000

// retention is a duration that may be forever.
type retention time.Duration

// variable is the name of the environment variable of a key.
func variable(key string) string {
	return "PGBELL_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// variables of the setting, the one that wins first.
func (s *setting) variables() []string {
	return append([]string{variable(s.key)}, s.aliases...)
}

// set reads text into the target, a pointer.
func set(target any, text string) error {
	var err error
	switch target := target.(type) {
	case *string:
		if strings.ContainsRune(text, 0) {
			return errors.New("has a NUL character")
		}
		*target = text
	case *int:
		if *target, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%s is not a whole number", quote(text))
		}
	case *bool:
		if *target, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%s is not true or false", quote(text))
		}
	case *float64:
		if *target, err = strconv.ParseFloat(text, 64); err != nil {
			return fmt.Errorf("%s is not a number", quote(text))
		}
	case *time.Duration:
		*target, err = ParseDuration(text)
	case *retention:
		if text == "forever" {
			*target = retention(forever)
			return nil
		}
		kept, err := ParseDuration(text)
		*target = retention(kept)
		return err
	case *size:
		var bytes int
		bytes, err = ParseSize(text)
		*target = size(bytes)
	default:
		return fmt.Errorf("can't set a %T", target)
	}
	return err
}

// show is the value that target points to, as set reads it.
func show(target any) string {
	switch target := target.(type) {
	case *string:
		return *target
	case *int:
		return strconv.Itoa(*target)
	case *bool:
		return strconv.FormatBool(*target)
	case *float64:
		return strconv.FormatFloat(*target, 'g', -1, 64)
	case *time.Duration:
		return FormatDuration(*target)
	case *retention:
		return FormatDuration(time.Duration(*target))
	case *size:
		return FormatSize(int(*target))
	}
	return ""
}

// size is a number of bytes.
type size int

func between(value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("%d is not between %d and %d", value, low, high)
	}
	return nil
}

func durationBetween(value, low, high time.Duration) error {
	if value < low || value > high {
		return fmt.Errorf("%s is not between %s and %s", FormatDuration(value), FormatDuration(low), FormatDuration(high))
	}
	return nil
}

func oneOf(value string, choices ...string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	text := fmt.Sprintf("%s is not one of %s", quote(value), strings.Join(choices, ", "))
	if near := nearest(value, choices); near != "" {
		return &hinted{text, fmt.Sprintf("did you mean %q?", near)}
	}
	return errors.New(text)
}

// hinted is an error that says how to mend it.
type hinted struct{ text, hint string }

func (h *hinted) Error() string { return h.text }

// checkURL never shows the URL: it may be a password that went astray.
func checkURL(text string) error {
	if text == "" {
		return nil
	}
	if _, err := pgx.ParseConfig(text); err != nil {
		return &hinted{
			"is not a connection string that Postgres understands" + connectionReason(err),
			"write postgres://user:password@host:5432/database, with special characters in the password percent-encoded",
		}
	}
	return nil
}

// connectionReason tells those reasons that hold nothing of the string itself.
func connectionReason(err error) string {
	for _, reason := range []string{"sslmode is invalid", "invalid port", "unable to read CA file", "unable to parse sslkey",
		"unable to add CA to cert pool", "invalid keyword/value", "unable to read service", "unable to find service",
		"invalid target_session_attrs", "invalid connect_timeout", "invalid userinfo", "invalid URL escape", "sslcert", "sslkey"} {
		if strings.Contains(err.Error(), reason) {
			return ": " + reason
		}
	}
	return ""
}

func checkSchema(name string) error {
	if err := migrations.CheckSchema(name); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "schema "))
	}
	return nil
}

var portNumber = regexp.MustCompile(`^[0-9]{1,5}$`)

func checkAddr(addr string) error {
	if addr == "off" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return &hinted{quote(addr) + " is not host:port", "write 127.0.0.1:9797, :9797 for all interfaces, or off"}
	}
	number, _ := strconv.Atoi(port)
	if !portNumber.MatchString(port) || number > 65535 {
		return fmt.Errorf("%s has no port between 0 and 65535", quote(addr))
	}
	if strings.ContainsAny(host, " \t\"'/") {
		return fmt.Errorf("%s is not a host name or address", quote(host))
	}
	return nil
}
