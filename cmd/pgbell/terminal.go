package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// printable makes text from a stranger safe for one line of a terminal: nothing in it moves the cursor, changes colours,
// turns the writing direction or hides.
func printable(text string) string { return escaped(text, false) }

// printableLines keeps line ends, and indents what follows them, so that no line looks like one of ours.
func printableLines(text string) string {
	return strings.ReplaceAll(escaped(text, true), "\n", "\n  ")
}

func escaped(text string, lines bool) string {
	safe := true
	for _, r := range text {
		if !isPlain(r) {
			safe = false
			break
		}
	}
	if safe {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		switch {
		case isPlain(r), lines && r == '\n':
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\t':
			out.WriteString(`\t`)
		case r == '\r':
			out.WriteString(`\r`)
		case r > 0xffff:
			fmt.Fprintf(&out, `\U%08x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// isPlain: printable, and not one of those that only act on their neighbours (Cf: directions, joiners, tags).
func isPlain(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }

// shorten cuts text to n characters.
func shorten(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// writeJSON writes value as JSON in one line. What encoding/json leaves as it is and a terminal obeys is escaped.
func writeJSON(w io.Writer, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	text := string(encoded)
	if strings.ContainsFunc(text, func(r rune) bool { return !isPlain(r) }) {
		var out strings.Builder
		for _, r := range text {
			switch {
			case isPlain(r), r == utf8.RuneError:
				out.WriteRune(r)
			case r > 0xffff:
				fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
			default:
				fmt.Fprintf(&out, `\u%04x`, r)
			}
		}
		text = out.String()
	}
	if _, err := io.WriteString(w, text+"\n"); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// writeTable writes rows of printable cells in columns.
func writeTable(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var out strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if _, err := io.WriteString(w, out.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
