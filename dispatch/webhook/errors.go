package webhook

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrorText is how many bytes of a body or of another error an error tells.
const maxErrorText = 2000

// failure is an error whose text is fit for a database, a log and a terminal, whatever the other side sent.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// failure returns the error that text happened at this endpoint, because of cause if that isn't nil.
func (h *Handler) failure(cause error, text string) error {
	text = "webhook " + h.name + ": " + text
	if cause != nil {
		text += ": " + clip(cause.Error(), maxErrorText)
	}
	return &failure{text: h.settings.hide.Replace(text), cause: cause}
}

// minHidden is how long a value must be to count as a secret: a shorter one guesses itself, and is in many a word.
const minHidden = 8

// newHide returns what hides an endpoint's secrets in errors: one that answers what it was asked would put them there.
func newHide(c Config, target *url.URL, authorization string) *strings.Replacer {
	secrets := slices.Clone(c.Secrets)
	for _, value := range c.Headers {
		secrets = append(append(secrets, value), strings.Fields(value)...)
	}
	secrets = append(secrets, strings.Fields(authorization)...)
	if target != nil {
		if password, ok := target.User.Password(); ok {
			secrets = append(secrets, password)
		}
		secrets = append(secrets, target.RawQuery)
		for _, values := range target.Query() {
			secrets = append(secrets, values...)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, secret := range secrets {
		if secret = oneLine(secret); len(secret) >= minHidden {
			pairs = append(pairs, secret, "***")
		}
	}
	return strings.NewReplacer(pairs...)
}

// redacted returns u without what may be secret: user, password, query and fragment.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// clip returns text on one line, cut at the end to about limit bytes.
func clip(text string, limit int) string {
	text = oneLine(text)
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "…"
}

// clipTail returns text on one line, cut at the beginning to about limit bytes: in a trace, what matters stands last.
func clipTail(text string, limit int) string {
	text = oneLine(text)
	if len(text) <= limit {
		return text
	}
	start := len(text) - limit
	for start < len(text) && !utf8.RuneStart(text[start]) {
		start++
	}
	return "…" + text[start:]
}

// oneLine turns runs of white space, control characters and invisible ones, such as those that reverse the direction of
// writing, into single spaces, and what is no UTF-8 into U+FFFD.
func oneLine(text string) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return strings.Join(strings.Fields(clean), " ")
}
