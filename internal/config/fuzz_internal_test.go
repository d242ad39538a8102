package config

import (
	"strings"
	"testing"
	"time"
)

// FuzzExpand: values of variables come out as they are, and nothing of them is read again.
func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"", "$", "$$", "${A}", "${A", "$${A}", "a${A}b${A}c", "${}", "${1}", "${A_B2}", "${\xff}", "$$$${B}", "${${A}}"} {
		f.Add(seed, "${A}")
		f.Add(seed, "$")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		got, err := expand(text, map[string]string{"A": value})
		if err != nil {
			if got != "" {
				t.Fatalf("%q is %q beside an error", text, got)
			}
			if err.Error() == "" || len(err.Error()) > 300+len(text) {
				t.Fatalf("%q: the error is %q", text, err)
			}
			return
		}
		// An oracle of another make: what stands between pairs of $$ has no escapes.
		parts := strings.Split(text, "$$")
		for i, part := range parts {
			parts[i] = strings.ReplaceAll(part, "${A}", value)
		}
		if want := strings.Join(parts, "$"); got != want {
			t.Fatalf("%q with %q is %q, want %q", text, value, got, want)
		}
		escaped := strings.ReplaceAll(text, "$", "$$")
		if back, err := expand(escaped, nil); err != nil || back != text {
			t.Fatalf("%q, escaped, is %q, %v", text, back, err)
		}
	})
}

// FuzzScalars: durations and sizes are refused or in bounds, and what they are written as reads the same.
func FuzzScalars(f *testing.F) {
	for _, seed := range []string{"", "0", "1.5s", "1d12h", "5", "ms", "1e9s", "9999999w", "0.0000000001ns", ".s", "1..5s", "٣s", "4MiB", "1.5KiB", "99999GiB", "4 mb", "b", ".b", "1_0", "NaN", "inf"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDuration(text); err == nil {
			if d < 0 || d > 100*365*day {
				t.Fatalf("%q is %d", text, d)
			}
			if again, err := ParseDuration(FormatDuration(d)); err != nil || again.Round(time.Microsecond) != d.Round(time.Microsecond) {
				t.Fatalf("%q is %d, written %s, read %d, %v", text, d, FormatDuration(d), again, err)
			}
		} else if len(err.Error()) > 600 {
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
		if n, err := ParseSize(text); err == nil {
			if n < 0 || n > 1<<40 {
				t.Fatalf("%q is %d", text, n)
			}
			if again, err := ParseSize(FormatSize(n)); err != nil || again != n {
				t.Fatalf("%q is %d, written %s, read %d, %v", text, n, FormatSize(n), again, err)
			}
		} else if len(err.Error()) > 600 {
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
	})
}
