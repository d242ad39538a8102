package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// fileSuffix at the end of a secret's variable: the name of the file that holds the value.
const fileSuffix = "_FILE"

// ownVariables have names like settings and are something else: the file's name, and what pgbell tells its child processes.
var ownVariables = []string{"PGBELL_CONFIG", "PGBELL_JOB_ID", "PGBELL_JOB_TYPE", "PGBELL_ATTEMPT", "PGBELL_MAX_ATTEMPTS",
	"PGBELL_LEASE", "PGBELL_DEADLINE"}

func (c *Config) readEnviron(environ map[string]string) Mistakes {
	var mistakes Mistakes
	known := slices.Clone(ownVariables)
	for i := range settings {
		setting := &settings[i]
		value, name, found := "", "", false
		for _, candidate := range setting.variables() {
			known = append(known, candidate)
			if setting.secret {
				known = append(known, candidate+fileSuffix)
			}
			if found {
				continue
			}
			var mistake *Mistake
			if value, name, found, mistake = lookUp(setting, candidate, environ); mistake != nil {
				mistakes = append(mistakes, *mistake)
			}
		}
		if !found {
			continue
		}
		if err := set(setting.target(c), value); err != nil {
			mistakes = append(mistakes, Mistake{Where: name, Message: err.Error()})
			continue
		}
		c.origins[setting.key] = Origin{SourceEnv, name}
	}
	c.warnUnknown(environ, known)
	return mistakes
}

// lookUp finds the value of one variable, or what the file holds that its twin names.
func lookUp(setting *setting, name string, environ map[string]string) (value, from string, found bool, mistake *Mistake) {
	value, found = environ[name]
	if !setting.secret {
		return value, name, found, nil
	}
	path, twin := environ[name+fileSuffix]
	switch {
	case !twin:
		return value, name, found, nil
	case found:
		return "", "", false, &Mistake{Where: name, Message: "is set, and " + name + fileSuffix + " is set too", Hint: "unset one of the two"}
	}
	text, err := readFile(path)
	if err != nil {
		return "", "", false, &Mistake{Where: name + fileSuffix, Message: fmt.Sprintf("read %s: %s", path, reason(err))}
	}
	value = strings.TrimSpace(string(text))
	if value == "" {
		return "", "", false, &Mistake{Where: name + fileSuffix, Message: path + " is empty"}
	}
	return value, name + fileSuffix, true, nil
}

func (c *Config) warnUnknown(environ map[string]string, known []string) {
	var unknown []string
	for name := range environ {
		if strings.HasPrefix(name, "PGBELL_") && !slices.Contains(known, name) && !isServiceLink(name) {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	for _, name := range unknown {
		warning := fmt.Sprintf("the variable %s is not one that pgbell knows", quote(name))
		if near := nearest(name, known); near != "" {
			warning += fmt.Sprintf("; did you mean %s?", near)
		}
		c.Warnings = append(c.Warnings, warning)
	}
}

// isServiceLink: Kubernetes sets such variables in every pod next to a Service that is called pgbell.
func isServiceLink(name string) bool {
	return strings.HasPrefix(name, "PGBELL_SERVICE_") || name == "PGBELL_PORT" || strings.HasPrefix(name, "PGBELL_PORT_")
}

// Variables describes the variables, one line each: name, key, aliases.
func Variables() []string {
	var lines []string
	for i := range settings {
		line := fmt.Sprintf("  %-30s %s", variable(settings[i].key), settings[i].key)
		if len(settings[i].aliases) > 0 {
			line += " (also " + strings.Join(settings[i].aliases, ", ") + ")"
		}
		lines = append(lines, line)
	}
	return lines
}
