package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pgbell/pgbell/dispatch"
)

// DefaultPath is the file that is read, if it exists, when none is named.
const DefaultPath = "pgbell.yaml"

// maxFile bounds the file: a configuration of a thousand handlers has a tenth of it.
const maxFile = 1 << 20

// Options of Load.
type Options struct {
	// Path of the file. Defaults to what PGBELL_CONFIG says, then to DefaultPath if it exists, then to none.
	Path string
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// Flags that were given.
	Flags []Flag
	// DatabaseOnly leaves handlers unread, for commands that run no jobs: their secrets needn't be at hand.
	DatabaseOnly bool
}

// Flag is a value that was given on the command line.
type Flag struct {
	// Name as it was typed: "--schema".
	Name string
	// Key that it sets: "database.schema".
	Key, Value string
}

// Load reads the configuration. An error about what it says is of type Mistakes; the Config is never nil, and holds then
// what could be read, so that a logger can be made from it.
func Load(options Options) (*Config, error) {
	environ := environment(options.Environ)
	config := defaults()
	var mistakes Mistakes

	path, named := options.Path, "--config"
	if path == "" {
		path, named = environ["PGBELL_CONFIG"], "PGBELL_CONFIG"
	}
	if path == "" {
		path, named = DefaultPath, ""
	}
	text, err := readFile(path)
	switch {
	case err == nil:
		config.Path = path
		mistakes = append(mistakes, parse(config, text, path, environ, options.DatabaseOnly)...)
	case named == "" && errors.Is(err, fs.ErrNotExist):
	default:
		mistakes = append(mistakes, Mistake{Where: cmp.Or(named, path), Message: fmt.Sprintf("read %s: %s", path, reason(err))})
	}
	mistakes = append(mistakes, config.readEnviron(environ)...)
	mistakes = append(mistakes, config.readFlags(options.Flags)...)
	return config, config.finish(mistakes)
}

// Parse reads a file's text alone, with the variables that it may name. Where names it in mistakes.
func Parse(where string, text []byte, environ []string) (*Config, error) {
	config := defaults()
	config.Path = where
	mistakes := parse(config, text, where, environment(environ), false)
	return config, config.finish(mistakes)
}

// finish fills in what depends on other values, and returns all mistakes or nil.
func (c *Config) finish(mistakes Mistakes) error {
	mistakes = append(mistakes, c.check()...)
	for name, handler := range c.Handlers {
		if handler.Concurrency == 0 {
			handler.Concurrency = dispatch.DefaultConcurrency(c.Concurrency, len(c.Handlers))
			if handler.SQLFunc != nil {
				handler.Concurrency = min(handler.Concurrency, sqlFuncConcurrency)
			}
			c.Handlers[name] = handler
		}
	}
	if len(mistakes) > 0 {
		return mistakes.sorted()
	}
	return nil
}

// check looks at what can only be judged when every place was read.
func (c *Config) check() Mistakes {
	var mistakes Mistakes
	for i := range settings {
		setting := &settings[i]
		origin := c.origins[setting.key]
		if origin.Source == SourceDefault || setting.check == nil {
			continue
		}
		if err := setting.check(c); err != nil {
			mistakes = append(mistakes, c.about(setting.key, err))
		}
	}
	if c.DeadAfter >= c.LeaseTime {
		key := "dead_after"
		if c.origins[key].Source == SourceDefault {
			key = "lease_time"
		}
		mistakes = append(mistakes, c.about(key, fmt.Errorf("dead_after (%s) must be less than lease_time (%s)",
			FormatDuration(c.DeadAfter), FormatDuration(c.LeaseTime))))
	}
	return mistakes
}

// about is the mistake that the value of a key makes, wherever it came from.
func (c *Config) about(key string, err error) Mistake {
	origin := c.origins[key]
	mistake := Mistake{Where: origin.Where, Message: err.Error()}
	if origin.Source == SourceFile || origin.Source == SourceDefault {
		mistake.Message = key + ": " + mistake.Message
	}
	if place, ok := c.places[key]; ok && origin.Source == SourceFile {
		mistake.line, mistake.column, mistake.Snippet = place.line, place.column, place.snippet
	}
	var hint *hinted
	if errors.As(err, &hint) {
		mistake.Hint = hint.hint
	}
	return mistake
}

// Mistake is a mistake about the value of a key that is found when it is put to use; err must hold no secret.
func (c *Config) Mistake(key string, err error) Mistake { return c.about(key, err) }

func (c *Config) readFlags(flags []Flag) Mistakes {
	var mistakes Mistakes
	for _, flag := range flags {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.key == flag.Key })
		if i < 0 {
			mistakes = append(mistakes, Mistake{Where: flag.Name, Message: "sets the unknown key " + flag.Key})
			continue
		}
		if err := set(settings[i].target(c), flag.Value); err != nil {
			mistakes = append(mistakes, Mistake{Where: flag.Name, Message: err.Error()})
			continue
		}
		c.origins[flag.Key] = Origin{SourceFlag, flag.Name}
	}
	return mistakes
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, errors.New("the file is bigger than 1 MiB")
	}
	return text, nil
}

// reason of a failed file operation, without the path, which the caller names.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// environment as a map; an empty variable counts as unset.
func environment(environ []string) map[string]string {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			variables[name] = value
		}
	}
	return variables
}
