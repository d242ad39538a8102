package webhook

import (
	"net/url"
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
	return &failure{text: text, cause: cause}
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
