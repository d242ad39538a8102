package config

import (
	"net/url"
	"strings"
)

const hidden = "***"

// Redact returns a database or webhook URL, or a keyword/value connection string, with what is secret in it hidden: the
// password, and every parameter that isn't known to be harmless. What doesn't read for sure is hidden whole: a password that
// was not escaped ends up in the oddest places.
func Redact(text string) string {
	if text == "" {
		return ""
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || !isScheme(scheme) {
		return redactKeywords(text)
	}
	parsed, err := url.Parse(text)
	if err != nil || strings.Count(rest, "@") > 1 || strings.Contains(rest, "@") && parsed.User == nil {
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
		shown += "?" + redactQuery(parsed.RawQuery, strings.HasPrefix(parsed.Scheme, "http"))
	}
	return shown
}

func isScheme(text string) bool {
	return text != "" && strings.Trim(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz") == ""
}

// harmless parameters of a connection string: they are shown as they are.
var harmless = map[string]bool{
	"host": true, "hostaddr": true, "port": true, "dbname": true, "database": true, "user": true, "sslmode": true,
	"sslrootcert": true, "sslcert": true, "sslkey": true, "sslsni": true, "application_name": true, "connect_timeout": true,
	"target_session_attrs": true, "service": true, "servicefile": true, "passfile": true, "search_path": true,
	"timezone": true, "default_query_exec_mode": true, "statement_cache_capacity": true, "channel_binding": true,
}

// redactQuery shows the names of a webhook's parameters; of a connection string's only those that are known, as others may be
// what follows an & in a password.
func redactQuery(query string, anyName bool) string {
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case !ok || !anyName && !isKnown(name):
			parts[i] = hidden
		case !harmless[strings.ToLower(name)] || strings.ContainsAny(value, ";="):
			parts[i] = name + "=" + hidden
		}
	}
	return strings.Join(parts, "&")
}

func isKnown(name string) bool {
	name = strings.ToLower(name)
	return harmless[name] || name == "password" || name == "sslpassword"
}

// redactKeywords shows the harmless settings of "host=x password='a b'"; whatever doesn't read so is hidden whole.
func redactKeywords(text string) string {
	var shown []string
	for rest := strings.Trim(text, spaces); rest != ""; rest = strings.TrimLeft(rest, spaces) {
		name, after, ok := strings.Cut(rest, "=")
		name = strings.Trim(name, spaces)
		if !ok || !isKnown(name) {
			return strings.Join(append(shown, hidden), " ")
		}
		value, tail := cutValue(strings.TrimLeft(after, spaces))
		// host= password=x is a host named password=x.
		if !harmless[strings.ToLower(name)] || strings.Contains(value, "=") {
			value = hidden
		}
		shown = append(shown, name+"="+value)
		rest = tail
	}
	return strings.Join(shown, " ")
}

// spaces between settings, as pgx and libpq have them: no others, which are bytes of a letter.
const spaces = " \t\n\r\v\f"

// cutValue cuts the first value, as it stands, off the rest of a connection string.
func cutValue(text string) (value, rest string) {
	quoted := strings.HasPrefix(text, "'")
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case quoted && i > 0 && text[i] == '\'':
			return text[:i+1], text[i+1:]
		case !quoted && strings.IndexByte(spaces, text[i]) >= 0:
			return text[:i], text[i:]
		}
	}
	return text, ""
}
