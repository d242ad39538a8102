package subprocess

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config configures a Handler. The zero value of each field stands for its default.
type Config struct {
	// Command is the program and its arguments. There is no shell: nothing in them is expanded. A program without a slash
	// is looked up in this process's PATH, once, by New; one with a slash is relative to Dir. Required.
	Command []string

	// Dir is the child's working directory. Defaults to this process's.
	Dir string

	// Env holds further variables, each as NAME=value, over what is inherited.
	Env []string

	// Inherit names the variables of this process that a child gets: names, or beginnings of names with a * after them. What
	// Withhold names is left out, unless its whole name stands here. An empty slice that isn't nil means none. Defaults to
	// all ("*").
	Inherit []string

	// Withhold names variables, in the same way, that a child doesn't get, beside PG*, PGBELL_* and DATABASE_URL.
	Withhold []string

	// KillGrace is the time between SIGTERM and SIGKILL. It is cut to a quarter of the attempt's time before a deadline, to
	// 8 s at a shutdown, to 1 s when the job's lease is about to run out, and to nothing when it is lost. Defaults to 5 s.
	KillGrace time.Duration

	// MaxOutput is how many bytes of standard output are kept as the result. What comes after them is read and dropped,
	// and there is no result then. Defaults to 1 MiB.
	MaxOutput int

	// Guard kills what is running when this process dies. Nil: children outlive it, which is right only where something
	// else ends them with it, as the end of a container does.
	Guard *Guard
}

const (
	defaultKillGrace = 5 * time.Second
	defaultMaxOutput = 1 << 20
)

// jobVariables are set for each attempt; nothing else may set them.
func jobVariables() []string {
	return []string{"PGBELL_JOB_ID", "PGBELL_JOB_TYPE", "PGBELL_ATTEMPT", "PGBELL_MAX_ATTEMPTS", "PGBELL_LEASE", "PGBELL_DEADLINE"}
}

// withDefaults returns a copy that shares nothing with c.
func (c Config) withDefaults() Config {
	c.Command = slices.Clone(c.Command)
	c.Env = slices.Clone(c.Env)
	if c.Inherit == nil {
		c.Inherit = []string{"*"}
	}
	if c.KillGrace == 0 {
		c.KillGrace = defaultKillGrace
	}
	if c.MaxOutput == 0 {
		c.MaxOutput = defaultMaxOutput
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if len(c.Command) == 0 || c.Command[0] == "" {
		errs = append(errs, errors.New(`command: missing; name the program and its arguments, such as ["/usr/bin/thumbnail", "--fast"]`))
	}
	for i, arg := range c.Command {
		if strings.IndexByte(arg, 0) >= 0 {
			errs = append(errs, fmt.Errorf("command: argument %d holds a NUL byte", i))
		}
	}
	if c.Dir != "" {
		if info, err := os.Stat(c.Dir); err != nil {
			errs = append(errs, fmt.Errorf("dir: %w", err))
		} else if !info.IsDir() {
			errs = append(errs, fmt.Errorf("dir: %s is not a directory", c.Dir))
		}
	}
	for _, entry := range c.Env {
		name, _, found := strings.Cut(entry, "=")
		switch {
		case !found || name == "":
			// The entry may be a secret without its name: it isn't shown.
			errs = append(errs, errors.New("env: each entry must read NAME=value"))
		case strings.IndexByte(entry, 0) >= 0:
			errs = append(errs, fmt.Errorf("env: %q holds a NUL byte", name))
		case slices.Contains(jobVariables(), name):
			errs = append(errs, fmt.Errorf("env: %s is set for each attempt and can't be configured", name))
		}
	}
	for _, list := range []struct {
		field    string
		patterns []string
	}{{"inherit", c.Inherit}, {"withhold", c.Withhold}} {
		for _, pattern := range list.patterns {
			if body := strings.TrimSuffix(pattern, "*"); strings.ContainsAny(body, "*=\x00") || pattern == "" {
				errs = append(errs, fmt.Errorf("%s: %q is neither a variable's name nor the beginning of one with a * after it", list.field, pattern))
			}
		}
	}
	if c.KillGrace < 0 {
		errs = append(errs, fmt.Errorf("kill grace: %s is negative", c.KillGrace))
	}
	if c.MaxOutput < 0 {
		errs = append(errs, fmt.Errorf("max output: %d is negative", c.MaxOutput))
	}
	return errors.Join(errs...)
}

// lookUp returns the absolute path of the program.
func (c Config) lookUp() (string, error) {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return "", nil // validate has said so
	}
	program := c.Command[0]
	if strings.Contains(program, "/") && !filepath.IsAbs(program) {
		program = filepath.Join(c.Dir, program)
	}
	if strings.Contains(c.Command[0], "/") && !strings.Contains(program, "/") {
		program = "./" + program // Join has taken the ./ off, without which PATH would be searched
	}
	path, err := exec.LookPath(program)
	switch {
	case errors.Is(err, exec.ErrDot):
		return "", fmt.Errorf("command: %s is found only by a relative entry of PATH; write its whole path", program)
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("command: %s is not in PATH (%s); write its whole path, or install it", program, os.Getenv("PATH"))
	case err != nil:
		return "", fmt.Errorf("command: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("command: find %s: %w", program, err)
	}
	return path, nil
}

// environment returns what every child gets, out of this process's own environment.
func (c Config) environment(own []string) []string {
	set := make(map[string]string, len(own)+len(c.Env)+1)
	var order []string
	put := func(entry string) {
		name, value, found := strings.Cut(entry, "=")
		if !found || name == "" {
			return
		}
		if _, known := set[name]; !known {
			order = append(order, name)
		}
		set[name] = value
	}
	withhold := append([]string{"PG*", "DATABASE_URL"}, c.Withhold...)
	for _, entry := range own {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains(c.Inherit, name) || matches(c.Inherit, name) && !matches(withhold, name) {
			put(entry)
		}
	}
	if c.Dir != "" {
		if dir, err := filepath.Abs(c.Dir); err == nil {
			put("PWD=" + dir)
		}
	}
	for _, entry := range c.Env {
		put(entry)
	}
	env := make([]string, 0, len(order))
	for _, name := range order {
		if !slices.Contains(jobVariables(), name) {
			env = append(env, name+"="+set[name])
		}
	}
	return env
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if beginning, open := strings.CutSuffix(pattern, "*"); open {
			return strings.HasPrefix(name, beginning)
		}
		return pattern == name
	})
}
