package config

import (
	"net/url"
	"strings"
	"unicode"
)

const hidden = "***"

// Redact returns a database or webhook URL, or a keyword/value connection string, with what is secret in it hidden: the
// password, and every parameter that isn't known to be harmless.
func Redact(text string) string {
	if text == "" {
		return ""
	}
	if !strings.Contains(text, "://") {
		return redactKeywords(text)
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return hidden
	}
	shown := parsed.Scheme + "://"
	if parsed.User != nil {
		shown += url.User(parsed.User.Username()).String()
		if _, ok := parsed.User.Password(); ok {
			shown += ":" + hidden
		}
		shown += "@"
	}
	shown += parsed.Host + parsed.EscapedPath()
	if parsed.RawQuery != "" {
		shown += "?" + redactQuery(parsed.RawQuery)
	}
	return shown
}

// harmless parameters of a connection string: they are shown as they are.
var harmless = map[string]bool{
	"host": true, "hostaddr": true, "port": true, "dbname": true, "database": true, "user": true, "sslmode": true,
	"sslrootcert": true, "sslcert": true, "sslkey": true, "sslsni": true, "application_name": true, "connect_timeout": true,
	"target_session_attrs": true, "service": true, "servicefile": true, "passfile": true, "search_path": true,
	"timezone": true, "default_query_exec_mode": true, "statement_cache_capacity": true, "channel_binding": true,
}

func redactQuery(query string) string {
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, _, ok := strings.Cut(part, "=")
		if ok && !harmless[strings.ToLower(name)] {
			parts[i] = name + "=" + hidden
		}
	}
	return strings.Join(parts, "&")
}

// redactKeywords shows the harmless settings of "host=x password='a b'"; whatever doesn't read so is hidden whole.
func redactKeywords(text string) string {
	var shown []string
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return hidden
		}
		name = strings.TrimSpace(name)
		value, tail := cutValue(strings.TrimLeftFunc(after, unicode.IsSpace))
		if !harmless[strings.ToLower(name)] {
			value = hidden
		}
		shown = append(shown, name+"="+value)
		rest = tail
	}
	return strings.Join(shown, " ")
}

// cutValue cuts the first value, as it stands, off the rest of a connection string.
func cutValue(text string) (value, rest string) {
	quoted := strings.HasPrefix(text, "'")
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case quoted && i > 0 && text[i] == '\'':
			return text[:i+1], text[i+1:]
		case !quoted && unicode.IsSpace(rune(text[i])):
			return text[:i], text[i:]
		}
	}
	return text, ""
}
