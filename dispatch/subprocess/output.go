package subprocess

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// output keeps the first max bytes of what it is given, and the last tailSize bytes of the rest.
type output struct {
	max      int
	tailSize int
	head     []byte
	tail     []byte
	cut      bool // there was a rest
}

func (o *output) add(p []byte) {
	if room := o.max - len(o.head); room > 0 {
		n := min(room, len(p))
		o.head = append(o.head, p[:n]...)
		p = p[n:]
	}
	if len(p) == 0 {
		return
	}
	o.cut = true
	if len(p) >= o.tailSize {
		o.tail = append(o.tail[:0], p[len(p)-o.tailSize:]...)
		return
	}
	// Twice the size before the old is dropped, so that each byte is moved about once.
	if len(o.tail)+len(p) > 2*o.tailSize {
		keep := o.tailSize - len(p)
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-keep:]...)
	}
	o.tail = append(o.tail, p...)
}

// last returns at most the last n bytes.
func (o *output) last(n int) []byte {
	if len(o.tail) >= n {
		return o.tail[len(o.tail)-n:]
	}
	head := o.head
	if need := n - len(o.tail); len(head) > need {
		head = head[len(head)-need:]
	}
	return append(append([]byte(nil), head...), o.tail...)
}

// document returns all of the output, if that is a JSON text.
func (o *output) document() json.RawMessage {
	text := bytes.TrimSpace(o.head)
	if o.cut || len(text) == 0 || !utf8.Valid(text) || !json.Valid(text) {
		return nil
	}
	return text
}

// clean makes text of a program fit for a log, a terminal and a text column: valid UTF-8 without control characters,
// escape sequences, marks that turn the direction of writing, and blank lines.
func clean(raw []byte) string {
	var b strings.Builder
	for len(raw) > 0 {
		if n := escape(raw); n > 0 {
			raw = raw[n:]
			continue
		}
		r, n := utf8.DecodeRune(raw)
		raw = raw[n:]
		switch {
		case r == '\r' || r == '\n':
			b.WriteByte('\n')
		case r == '\t' || !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r):
			b.WriteRune(r)
		}
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimRightFunc(line, unicode.IsSpace); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// escape returns the length of the terminal control sequence that raw begins with (ECMA-48, section 5.4), or 0.
func escape(raw []byte) int {
	if len(raw) < 2 || raw[0] != 0x1b || raw[1] != '[' {
		return 0
	}
	for i, c := range raw[2:] {
		switch {
		case c >= 0x40 && c <= 0x7e:
			return i + 3
		case c < 0x20 || c > 0x3f:
			return 2
		}
	}
	return len(raw)
}

// tailOf returns the last max bytes of s or less, whole characters, with a mark where something was cut.
func tailOf(s string, max int) string {
	if len(s) <= max {
		return s
	}
	const mark = "…"
	s = s[len(s)-max+len(mark):]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return mark + s
}
