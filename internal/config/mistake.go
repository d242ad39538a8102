package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mistake is one thing wrong in the configuration.
type Mistake struct {
	// Where is file:line:column, the variable's name, or the flag's. Empty: nowhere in particular.
	Where string
	// Message says what is wrong.
	Message string
	// Snippet is the line in the file with a mark below the place, secrets masked. Empty outside the file.
	Snippet string
	// Hint says how to mend it. May be empty.
	Hint string

	line, column int
}

func (m Mistake) Error() string {
	if m.Where == "" {
		return m.Message
	}
	return m.Where + ": " + m.Message
}

// Mistakes are all things wrong in a configuration, those of the file first, in its order.
type Mistakes []Mistake

func (m Mistakes) Error() string {
	var lines []string
	for _, mistake := range m {
		lines = append(lines, mistake.Error())
	}
	return strings.Join(lines, "\n")
}

// maxMistakes is how many are told; more come from a file that is no configuration at all.
const maxMistakes = 50

func (m Mistakes) sorted() Mistakes {
	slices.SortStableFunc(m, func(a, b Mistake) int {
		if (a.line == 0) != (b.line == 0) {
			return cmp.Compare(b.line, a.line)
		}
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	if len(m) > maxMistakes {
		more := len(m) - maxMistakes
		m = append(m[:maxMistakes:maxMistakes], Mistake{Message: fmt.Sprintf("and %d more mistakes", more)})
	}
	return m
}

const maxSnippet = 120

// snippet shows a line and marks a column, both counted from 1.
func snippet(lines []string, line, column int) string {
	if line < 1 || line > len(lines) {
		return ""
	}
	raw := []rune(strings.ToValidUTF8(lines[line-1], "?"))
	column = min(max(column, 1), len(raw)+1)
	// The mark stands under the right place only where nothing before it was masked.
	marked := mask(string(raw[:column-1])) == string(raw[:column-1])
	shown := mask(string(raw))
	marked = marked && strings.HasPrefix(shown, string(raw[:column-1]))
	shown = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x202e || r == utf8.RuneError {
			return ' '
		}
		return r
	}, shown)
	if utf8.RuneCountInString(shown) > maxSnippet {
		shown = string([]rune(shown)[:maxSnippet]) + "..."
		marked = marked && column <= maxSnippet
	}
	text := fmt.Sprintf("%5d | %s", line, shown)
	if marked {
		text += "\n      | " + strings.Repeat(" ", column-1) + "^"
	}
	return text
}

var (
	secretKey  = regexp.MustCompile(`(?i)^(.*?\b[\w-]*(?:secret|password|passwd|token|apikey|api_key|private_key)[\w-]*["']?\s*[:=]\s*)(.+)$`)
	secretFile = regexp.MustCompile(`(?i)\b(secret_file|passfile|sslpassword_file)["']?\s*:`)
	userInfo   = regexp.MustCompile(`(//[^/:@\s]*:)(.*)(@)`)
	whsec      = regexp.MustCompile(`(whsec_|whsk_)[^\s"',\]}]+`)
)

// mask hides what looks like a secret in one line of text. It rather hides too much.
func mask(text string) string {
	text = whsec.ReplaceAllString(text, "$1***")
	text = userInfo.ReplaceAllString(text, "$1***$3")
	if secretFile.MatchString(text) {
		return text
	}
	return secretKey.ReplaceAllString(text, "$1***")
}
