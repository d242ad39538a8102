package demo

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func aSnapshot() Snapshot {
	s := Snapshot{
		Phase: "running", Elapsed: 83 * time.Second, Total: Tally{Inserted: 123456, Completed: 120000, Failed: 34, Retried: 5, waiting: 6, running: 7},
		Refused: 8, RolledBack: 9, InsertRate: 49.6, FinishRate: 50.4, Recent: Pickup{P50: 0.84, P95: 2.5, P99: 9.96, Max: 12, Count: 500},
		FirstCompleted: 1340 * time.Millisecond,
		Errors:         []string{"oldest", "error one", "error two", "error three " + strings.Repeat("日本", 80)},
		Visits:         []string{"hello {} ran"}, Visitors: 1, Unexpected: []string{"a job ran twice"},
	}
	for _, way := range ways {
		s.Types = append(s.Types, TypeCounts{way.jobType, way.way, Tally{Inserted: 10, Completed: 9, Failed: 1}})
	}
	return s
}

func plainText(lines [][]piece) string {
	var text strings.Builder
	for _, line := range lines {
		for _, p := range line {
			text.WriteString(p.text)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

func TestRenderFits(t *testing.T) {
	t.Parallel()
	for width := 1; width <= 220; width += 3 {
		for height := 1; height <= 40; height++ {
			lines := render(aSnapshot(), width, height)
			if len(lines) > height {
				t.Fatalf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				cells := 0
				for _, p := range line {
					cells += textCells(p.text)
				}
				if cells > width {
					t.Fatalf("%dx%d: %d cells in %v", width, height, cells, line)
				}
			}
		}
	}
}

func TestRenderShowsWhatMatters(t *testing.T) {
	t.Parallel()
	rich := plainText(render(aSnapshot(), 200, 40))
	for _, want := range []string{
		"running, 1:23", "first job completed 1.34 s", "send_email", "subprocess", "inserted 123456 at 50/s", "refused 8", "rolled back 9",
		"p50 0.8, p95 2.5, p99 10.0 ms", "unexpected: a job ran twice", "error: error three", "error: error one", "yours: hello {} ran",
	} {
		if !strings.Contains(rich, want) {
			t.Errorf("%q is missing in:\n%s", want, rich)
		}
	}
	if strings.Contains(rich, "oldest") {
		t.Errorf("an old error is shown:\n%s", rich)
	}
	small := plainText(render(aSnapshot(), 80, 13))
	for _, want := range []string{"all", "p99 10.0", "unexpected", "error three", "yours: hello"} {
		if !strings.Contains(small, want) {
			t.Errorf("%q is missing in a small terminal:\n%s", want, small)
		}
	}
}

// recorder notes each write.
type recorder struct{ writes []string }

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, string(p))
	return len(p), nil
}

func (r *recorder) last() string { return r.writes[len(r.writes)-1] }

func TestScreenDrawsInPlace(t *testing.T) {
	t.Parallel()
	out, width, height := &recorder{}, 80, 40
	s := NewScreen(out, func() (int, int) { return width, height }, false)
	s.Intro(Intro{Postgres: "17.1 (Some OS)", Where: "here", Psql: "psql 'postgres://x' -c \"...\"", Rate: 50})
	s.Frame(aSnapshot())
	first := out.last()
	if len(out.writes) != 2 || !strings.HasPrefix(first, hideCursor+"\r") || strings.Contains(first, "\x1b[2J") {
		t.Fatalf("the first frame is not one write that hides the cursor: %q", out.writes)
	}
	rows := strings.Count(first, "\n")
	s.Frame(aSnapshot())
	if got := out.last(); !strings.HasPrefix(got, fmt.Sprintf("\r\x1b[%dA", rows)) || strings.Count(got, "\n") != rows || strings.Count(got, clearLine) != rows {
		t.Errorf("the second frame is not drawn over the first one's %d rows: %q", rows, got)
	}
	if _, err := s.Write([]byte("a log line\n")); err != nil || out.last() != fmt.Sprintf("\r\x1b[%dA", rows)+clearBelow+"a log line\r\n" {
		t.Errorf("a log line is not printed in the block's place: %q, %v", out.last(), err)
	}
	s.Frame(aSnapshot())
	if got := out.last(); !strings.HasPrefix(got, "\rpgbell demo") {
		t.Errorf("the block is not drawn below the log line: %q", got)
	}
	width = 60
	s.Frame(aSnapshot())
	if got := out.last(); !strings.HasPrefix(got, clearScreen+"PostgreSQL 17.1 at here, 50 jobs/s") {
		t.Errorf("after a resize not everything is drawn anew: %q", got)
	}
	s.Close()
	s.Close()
	if all := strings.Join(out.writes, ""); out.last() != showCursor || strings.Count(all, showCursor) != 1 || strings.Contains(all, "m") && strings.Contains(all, "\x1b[3") {
		t.Errorf("the cursor is not shown once at the end, or there are colours: %q", all)
	}
	s.Frame(aSnapshot())
	if out.last() != showCursor {
		t.Error("something was drawn after Close")
	}
}

func TestScreenPaints(t *testing.T) {
	t.Parallel()
	out := &recorder{}
	NewScreen(out, func() (int, int) { return 80, 40 }, true).Frame(aSnapshot())
	if got := out.last(); !strings.Contains(got, "\x1b[31munexpected: a job ran twice\x1b[0m") {
		t.Errorf("no red in %q", got)
	}
}

func TestLinesTellNewsOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := NewLines(&out)
	l.Intro(Intro{Psql: "psql 'postgres://x'", For: 10 * time.Second})
	shot := aSnapshot()
	l.Frame(shot)
	l.Frame(shot)
	shot.Visitors, shot.Visits = 9, []string{"v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"}
	l.Frame(shot)
	shot.Phase = "stopping"
	l.Frame(shot)
	l.Frame(shot)
	l.Close()
	text := out.String()
	for want, count := range map[string]int{
		"psql 'postgres://x'": 1, "It ends in 10s.": 1, "first job completed 1.34 s after the start": 1, "yours: hello {} ran\n": 1,
		"unexpected: a job ran twice\n": 1, "inserted 123456 (50/s)": 5, "stopping\n": 1, "running\n": 0, "yours: v9\n": 1, "yours: v5\n": 1, "yours: v4\n": 0, "yours: and 3 more\n": 1,
	} {
		if got := strings.Count(text, want); got != count {
			t.Errorf("%q is there %d times, want %d, in:\n%s", want, got, count, text)
		}
	}
	if strings.ContainsRune(text, '\x1b') {
		t.Errorf("control characters in %q", text)
	}
}

func FuzzOneLine(f *testing.F) {
	for _, seed := range []string{"", "plain", "a\nb\tc\x1b[2J", "\u202eright to left", "\xff\xfe", strings.Repeat("é", 1000), "\u0000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := oneLine(text)
		if len(got) > maxLine+len("…")+utf8.UTFMax || !utf8.ValidString(got) {
			t.Errorf("%d bytes, or not UTF-8: %q", len(got), got)
		}
		for _, r := range got {
			if r != utf8.RuneError && !unicode.IsPrint(r) {
				t.Errorf("%q has %U", got, r)
			}
		}
	})
}

// A shell gives psql what is meant, whatever is in the schema's name.
func TestPsqlCommandIsQuoted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		database database
		want     string
	}{
		{
			database{url: "postgres://postgres:pw@127.0.0.1:1/postgres?sslmode=disable", schema: "public", own: true},
			"postgres://postgres:pw@127.0.0.1:1/postgres?sslmode=disable|-c|INSERT INTO jobs (type, payload) VALUES ('hello', '{\"name\":\"you\"}')|",
		},
		{
			database{url: "host=/tmp/it's user=me password=secret dbname=x", schema: "it's `$HOME`"},
			"postgres://me@/x?host=%2Ftmp%2Fit%27s&port=5432|-c|INSERT INTO \"it's `$HOME`\".jobs (type, payload) VALUES ('hello', '{\"name\":\"you\"}')|",
		},
	} {
		output, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", `psql() { printf '%s|' "$@"; }; `+test.database.psql()).CombinedOutput()
		if err != nil || string(output) != test.want {
			t.Errorf("%s\ngives %s, want %s: %v", test.database.psql(), output, test.want, err)
		}
	}
}
