package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

func isLetter(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// handlers reads the mapping from types to handlers.
func (r *reader) handlers(node ast.Node) {
	r.config.Handlers = map[string]Handler{}
	for _, entry := range r.mapping(node, "handlers") {
		path := join("handlers", entry.name)
		if n := utf8.RuneCountInString(entry.name); n < 1 || n > 200 {
			r.mistake(entry.key, fmt.Sprintf("a job type has 1 to 200 characters, this one %d", n), "")
			continue
		}
		r.config.Handlers[entry.name] = r.handler(path, entry)
	}
}

func (r *reader) handler(path string, entry entry) Handler {
	handler := defaultHandler()
	var ways []string
	way := func(name string, read func(path string, value ast.Node)) field {
		return field{name, func(path string, value ast.Node) {
			ways = append(ways, name)
			read(path, value)
		}}
	}
	before := len(r.mistakes)
	r.fields(path, entry.value, []field{
		way("webhook", func(path string, value ast.Node) { handler.Webhook = r.webhook(path, value) }),
		way("subprocess", func(path string, value ast.Node) { handler.Subprocess = r.subprocess(path, value) }),
		way("sqlfunc", func(path string, value ast.Node) { handler.SQLFunc = r.sqlFunc(path, value) }),
		r.checked("concurrency", &handler.Concurrency, func() error { return between(handler.Concurrency, 1, maxConcurrency) }),
		r.checked("timeout", &handler.Timeout, func() error { return durationBetween(handler.Timeout, time.Millisecond, 30*day) }),
		{"backoff", func(path string, value ast.Node) { r.backoff(path, value, &handler.Backoff) }},
		r.checked("max_payload", (*size)(&handler.MaxPayload), func() error {
			if handler.MaxPayload < 2 || handler.MaxPayload > 1<<30 {
				return fmt.Errorf("%s is not between 2 and 1GiB", FormatSize(handler.MaxPayload))
			}
			return nil
		}),
	})
	switch {
	case len(ways) > 1:
		slices.Sort(ways)
		r.mistake(entry.key, fmt.Sprintf("%s says %s: a type runs in one way", path, strings.Join(ways, " and ")), "")
	case len(ways) == 0 && len(r.mistakes) == before:
		r.mistake(entry.key, path+" doesn't say how its jobs run", "give it one of webhook, subprocess, sqlfunc")
	}
	return handler
}

// checked is a scalar field with a range.
func (r *reader) checked(name string, target any, check func() error) field {
	return field{name, func(path string, value ast.Node) {
		if !r.scalar(path, value, target, false) {
			return
		}
		if err := check(); err != nil {
			r.mistakeIn(value, false, path+": "+err.Error(), err)
		}
	}}
}

func (r *reader) backoff(path string, node ast.Node, backoff *Backoff) {
	before := len(r.mistakes)
	r.fields(path, node, []field{
		r.checked("base", &backoff.Base, func() error { return durationBetween(backoff.Base, time.Millisecond, 30*day) }),
		r.checked("factor", &backoff.Factor, func() error { return floatBetween(backoff.Factor, 1, 100) }),
		r.checked("cap", &backoff.Cap, func() error { return durationBetween(backoff.Cap, time.Millisecond, 365*day) }),
		r.checked("jitter", &backoff.Jitter, func() error { return floatBetween(backoff.Jitter, 0, 1) }),
	})
	if len(r.mistakes) == before && backoff.Cap < backoff.Base {
		r.mistake(node, fmt.Sprintf("%s: cap (%s) is less than base (%s)", path, FormatDuration(backoff.Cap), FormatDuration(backoff.Base)), "")
	}
}

func floatBetween(value, low, high float64) error {
	// Written so that NaN is refused too.
	if !(value >= low && value <= high) {
		return fmt.Errorf("%g is not between %g and %g", value, low, high)
	}
	return nil
}

func (r *reader) webhook(path string, node ast.Node) *Webhook {
	webhook := &Webhook{}
	file, listed := "", false
	before := len(r.mistakes)
	r.fields(path, node, []field{
		{"url", func(path string, value ast.Node) {
			if !r.scalar(path, value, &webhook.URL, true) {
				return
			}
			if err := checkWebhookURL(webhook.URL); err != nil {
				r.mistakeIn(value, true, path+": "+err.Error(), err)
			}
		}},
		{"secret", func(path string, value ast.Node) {
			listed = true
			webhook.Secrets = r.secrets(path, value)
		}},
		{"secret_file", func(path string, value ast.Node) {
			if !r.scalar(path, value, &file, false) {
				return
			}
			secrets, err := readSecrets(file)
			if err != nil {
				r.mistake(value, path+": "+err.Error(), "")
			}
			webhook.Secrets = secrets
		}},
		{"headers", func(path string, value ast.Node) { webhook.Headers = r.texts(path, value, nil) }},
		{"allow_held", func(path string, value ast.Node) { r.scalar(path, value, &webhook.AllowHeld, false) }},
	})
	if listed && file != "" {
		r.mistake(node, path+" says both secret and secret_file", "take one of the two out")
	}
	if webhook.URL == "" && len(r.mistakes) == before {
		r.mistake(node, path+".url is missing", "")
	}
	return webhook
}

func checkWebhookURL(text string) error {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "" {
		return &hinted{"is not an http or https URL", "write http://127.0.0.1:3000/jobs"}
	}
	return nil
}

// secrets reads one secret or a list of them.
func (r *reader) secrets(path string, node ast.Node) []string {
	values := []ast.Node{node}
	if list, ok := r.resolve(node).(*ast.SequenceNode); ok {
		values = list.Values
	}
	var secrets []string
	for _, value := range values {
		secret := ""
		if !r.scalar(path, value, &secret, true) {
			continue
		}
		if secret == "" {
			r.mistakeIn(value, true, path+" is empty", nil)
			continue
		}
		secrets = append(secrets, secret)
	}
	r.note(path, node, true)
	return secrets
}

// readSecrets reads a file with one secret a line.
func readSecrets(path string) ([]string, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %s", path, reason(err))
	}
	secrets := strings.Fields(string(text))
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s holds no secret", path)
	}
	return secrets, nil
}

func (r *reader) subprocess(path string, node ast.Node) *Subprocess {
	subprocess := &Subprocess{}
	before := len(r.mistakes)
	r.fields(path, node, []field{
		{"command", func(path string, value ast.Node) { subprocess.Command = r.command(path, value) }},
		{"dir", func(path string, value ast.Node) { r.scalar(path, value, &subprocess.Dir, false) }},
		{"env", func(path string, value ast.Node) { subprocess.Env = r.env(path, value) }},
	})
	if len(subprocess.Command) == 0 && len(r.mistakes) == before {
		r.mistake(node, path+".command is missing", `write command: ["./work", "--flag"]`)
	}
	return subprocess
}

func (r *reader) command(path string, node ast.Node) []string {
	list, ok := r.resolve(node).(*ast.SequenceNode)
	if !ok {
		r.mistake(node, path+" must be a list: the program and its arguments, no shell", `write command: ["./work", "--flag"], or ["sh", "-c", "..."]`)
		return nil
	}
	var command []string
	for i, value := range list.Values {
		argument := ""
		if !r.scalar(fmt.Sprintf("%s[%d]", path, i), value, &argument, false) {
			return nil
		}
		command = append(command, argument)
	}
	if len(command) == 0 || command[0] == "" {
		r.mistake(node, path+" names no program", "")
		return nil
	}
	r.note(path, node, false)
	return command
}

var variableName = regexp.MustCompile(`^[^=\s\x00]+$`)

func (r *reader) env(path string, node ast.Node) map[string]string {
	return r.texts(path, node, func(name string) string {
		switch {
		case !variableName.MatchString(name):
			return quote(name) + " can't be the name of a variable"
		case strings.HasPrefix(name, "PGBELL_"):
			return "names with PGBELL_ are pgbell's own"
		}
		return ""
	})
}

// texts reads a mapping of names to texts that may be secret. Refuse says what is wrong with a name; it may be nil.
func (r *reader) texts(path string, node ast.Node, refuse func(name string) string) map[string]string {
	texts := map[string]string{}
	for _, entry := range r.mapping(node, path) {
		if refuse != nil {
			if refusal := refuse(entry.name); refusal != "" {
				r.mistake(entry.key, path+": "+refusal, "")
				continue
			}
		}
		text := ""
		if r.scalar(join(path, entry.name), entry.value, &text, true) {
			texts[entry.name] = text
		}
	}
	return texts
}

func (r *reader) sqlFunc(path string, node ast.Node) *SQLFunc {
	function := &SQLFunc{}
	before := len(r.mistakes)
	r.fields(path, node, []field{
		r.checked("function", &function.Function, func() error {
			if strings.ContainsAny(function.Function, "();") {
				return errors.New("is the name of a function alone, such as public.work, without parentheses")
			}
			return nil
		}),
	})
	if function.Function == "" && len(r.mistakes) == before {
		r.mistake(node, path+".function is missing", "write function: schema.name")
	}
	return function
}
