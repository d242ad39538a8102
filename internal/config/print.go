package config

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Setting is one value of the effective configuration, for people to look at.
type Setting struct {
	// Path of the key, from the top.
	Path []string
	// Value is a string, a []string, or nil for an empty mapping; secrets and passwords are hidden.
	Value any
	// Origin of the value.
	Origin Origin
}

// Key is the path in one text, as mistakes name it.
func (s Setting) Key() string {
	key := ""
	for _, name := range s.Path {
		key = join(key, name)
	}
	return key
}

// Settings returns all values, in the order of the documentation, handlers by type.
func (c *Config) Settings() []Setting {
	var list []Setting
	add := func(value any, path ...string) {
		setting := Setting{Path: path, Value: value}
		setting.Origin = c.origins[setting.Key()]
		list = append(list, setting)
	}
	for i := range settings {
		value := show(settings[i].target(c))
		if settings[i].secret {
			value = Redact(value)
		}
		add(value, strings.Split(settings[i].key, ".")...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Handlers)) {
		handler := c.Handlers[name]
		scalar := func(target any, path ...string) { add(show(target), append([]string{"handlers", name}, path...)...) }
		if handler.Webhook != nil {
			add(Redact(handler.Webhook.URL), "handlers", name, "webhook", "url")
			key := "secret"
			if c.Origin(join(join("handlers", name), "webhook.secret_file")).Source == SourceFile {
				key = "secret_file"
			}
			add(slices.Repeat([]string{hidden}, len(handler.Webhook.Secrets)), "handlers", name, "webhook", key)
			for _, header := range slices.Sorted(maps.Keys(handler.Webhook.Headers)) {
				add(hidden, "handlers", name, "webhook", "headers", header)
			}
			scalar(&handler.Webhook.AllowHeld, "webhook", "allow_held")
		}
		if handler.Subprocess != nil {
			add(handler.Subprocess.Command, "handlers", name, "subprocess", "command")
			scalar(&handler.Subprocess.Dir, "subprocess", "dir")
			for _, variable := range slices.Sorted(maps.Keys(handler.Subprocess.Env)) {
				add(hidden, "handlers", name, "subprocess", "env", variable)
			}
		}
		if handler.SQLFunc != nil {
			scalar(&handler.SQLFunc.Function, "sqlfunc", "function")
		}
		scalar(&handler.Concurrency, "concurrency")
		scalar(&handler.Timeout, "timeout")
		scalar(&handler.Backoff.Base, "backoff", "base")
		scalar(&handler.Backoff.Factor, "backoff", "factor")
		scalar(&handler.Backoff.Cap, "backoff", "cap")
		scalar(&handler.Backoff.Jitter, "backoff", "jitter")
		scalar((*size)(&handler.MaxPayload), "max_payload")
	}
	return list
}

// Format writes settings in the form of the file, with where each value came from as a comment.
func Format(list []Setting) string {
	var out strings.Builder
	var last []string
	for _, setting := range list {
		shared := 0
		for shared < len(last) && shared < len(setting.Path)-1 && last[shared] == setting.Path[shared] {
			shared++
		}
		for depth := shared; depth < len(setting.Path)-1; depth++ {
			out.WriteString(strings.Repeat("  ", depth) + scalarText(setting.Path[depth]) + ":\n")
		}
		depth := len(setting.Path) - 1
		line := strings.Repeat("  ", depth) + scalarText(setting.Path[depth]) + ": " + valueText(setting.Value)
		out.WriteString(line + strings.Repeat(" ", max(1, 48-len(line))) + "# " + setting.Origin.String() + "\n")
		last = setting.Path
	}
	return out.String()
}

func valueText(value any) string {
	switch value := value.(type) {
	case string:
		return scalarText(value)
	case []string:
		parts := make([]string, len(value))
		for i, each := range value {
			parts[i] = jsonText(each)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return ""
}

// scalarText quotes what YAML would read as something else than this text.
func scalarText(text string) string {
	plain := text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '-' && r != '.'
	}) && text[0] != '-'
	if plain {
		return text
	}
	return jsonText(text)
}

// jsonText is a JSON string, which is a YAML string too, with only printable ASCII in it.
func jsonText(text string) string {
	encoded, err := json.Marshal(text)
	if err != nil {
		return `""`
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&", "\u007f", `\u007f`).Replace(string(encoded))
}
