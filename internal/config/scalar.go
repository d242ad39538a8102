package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// forever is a Retention without end.
const forever time.Duration = -1

var durationUnits = []struct {
	name string
	size time.Duration
}{
	{"w", 7 * day}, {"d", day}, {"h", time.Hour}, {"ms", time.Millisecond}, {"m", time.Minute}, {"s", time.Second},
	{"us", time.Microsecond}, {"µs", time.Microsecond}, {"ns", time.Nanosecond},
}

// ParseDuration reads what time.ParseDuration reads, and d and w too: 7d, 1.5s, 1d12h. Never negative.
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("is empty")
	}
	if text == "0" {
		return 0, nil
	}
	var total time.Duration
	for rest := text; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		number, err := strconv.ParseFloat(rest[:digits], 64)
		if err != nil {
			return 0, fmt.Errorf("%s is not a duration such as 1.5s, 15m or 7d", quote(text))
		}
		rest = rest[digits:]
		if rest == "" {
			return 0, fmt.Errorf("%s has no unit: say %ss, or %[2]sms, m, h, d, w", quote(text), text)
		}
		unit, size := durationUnit(rest)
		if size == 0 {
			return 0, fmt.Errorf("%s is not a duration such as 1.5s, 15m or 7d", quote(text))
		}
		rest = rest[len(unit):]
		part := math.Round(number * float64(size))
		if part+float64(total) > 100*365*float64(day) {
			return 0, fmt.Errorf("%s is more than 100 years", quote(text))
		}
		total += time.Duration(part)
	}
	return total, nil
}

func durationUnit(text string) (string, time.Duration) {
	end := strings.IndexAny(text, "0123456789.")
	if end < 0 {
		end = len(text)
	}
	for _, unit := range durationUnits {
		if text[:end] == unit.name {
			return unit.name, unit.size
		}
	}
	return "", 0
}

// FormatDuration writes d as ParseDuration reads it, in the biggest unit that fits.
func FormatDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "forever"
	case d == 0:
		return "0s"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var sizeUnits = []struct {
	name string
	size float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"b", 1},
}

// ParseSize reads a number of bytes: 65536, 64kB, 4MB (millions), 4MiB (2^20).
func ParseSize(text string) (int, error) {
	lower := strings.ToLower(text)
	scale := 1.0
	number := lower
	for _, unit := range sizeUnits {
		if found, ok := strings.CutSuffix(lower, unit.name); ok {
			number, scale = strings.TrimSpace(found), unit.size
			break
		}
	}
	if strings.Trim(number, "0123456789.") != "" || number == "" {
		return 0, fmt.Errorf("%s is not a size such as 65536, 64kB or 4MiB", quote(text))
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size such as 65536, 64kB or 4MiB", quote(text))
	}
	value = math.Round(value * scale)
	if value > 1<<40 {
		return 0, fmt.Errorf("%s is too big", quote(text))
	}
	return int(value), nil
}

// FormatSize writes a size as ParseSize reads it, in the biggest unit that divides it.
func FormatSize(size int) string {
	for _, unit := range []struct {
		name string
		size int
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if size > 0 && size%unit.size == 0 {
			return strconv.Itoa(size/unit.size) + unit.name
		}
	}
	return strconv.Itoa(size)
}

// quote shows a value that someone typed, in one line and not too long.
func quote(text string) string {
	if len(text) > 60 {
		text = strings.ToValidUTF8(text[:60], "") + "..."
	}
	return strconv.Quote(text)
}
