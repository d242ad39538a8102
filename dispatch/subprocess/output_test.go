package subprocess

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestOutputKeepsBothEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := &output{max: rapid.IntRange(0, 20).Draw(t, "max"), tailSize: rapid.IntRange(1, 20).Draw(t, "tail")}
		var all []byte
		for _, part := range rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 50)).Draw(t, "parts") {
			o.add(part)
			all = append(all, part...)
		}
		if !bytes.Equal(o.head, all[:min(o.max, len(all))]) || o.cut != (len(all) > o.max) {
			t.Fatalf("head %v, cut %v of %v", o.head, o.cut, all)
		}
		n := rapid.IntRange(0, o.tailSize).Draw(t, "n")
		if last := o.last(n); !bytes.Equal(last, all[len(all)-min(n, len(all)):]) {
			t.Fatalf("last(%d) is %v of %v", n, last, all)
		}
		if len(o.tail) > 2*o.tailSize {
			t.Fatalf("%d bytes of tail", len(o.tail))
		}
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                            "",
		"  two  \n\n\n lines\t\n":     "  two\n lines",
		"10%\r20%\r\n30%":             "10%\n20%\n30%",
		"\x1b[1;31mE\x1b[0m: \x1b[Kx": "E: x",
		"\x1b[31":                     "",
		"\x1b[3\nx":                   "3\nx",
		"\x1b]0;title\x07x":           "]0;titlex",
		"\u009b31mx":                  "31mx",
		"a\x00\x7f\u202eb\u2066c":     "abc",
		"\xff\xc3":                    "\ufffd\ufffd",
		"naïve 👩‍💻":                   "naïve 👩‍💻",
	} {
		if got := clean([]byte(raw)); got != want {
			t.Errorf("clean(%q) is %q, want %q", raw, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m\r\n\x00\xff"), 5)
	f.Add([]byte("\x1b[\x1b[[K"), 0)
	f.Fuzz(func(t *testing.T, raw []byte, max int) {
		text := clean(raw)
		if !utf8.ValidString(text) {
			t.Errorf("%q is not UTF-8", text)
		}
		if i := strings.IndexFunc(text, func(r rune) bool {
			return r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
		}); i >= 0 {
			t.Errorf("%q holds a control character at %d", text, i)
		}
		if max = 3 + int(uint8(max)); len(tailOf(text, max)) > max || !utf8.ValidString(tailOf(text, max)) {
			t.Errorf("the last %d of %q are %q", max, text, tailOf(text, max))
		}
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	orders := "+10\n+20\n-10\n+30\n+30\n-40\n\n+\n+x\n+0\n+1\n+-1\n20\n*50\n+60"
	live := watch(strings.NewReader(orders))
	if len(live) != 2 {
		t.Errorf("got %v", live)
	}
	for _, pgid := range []int{20, 30} {
		if _, there := live[pgid]; !there {
			t.Errorf("%d is missing in %v", pgid, live)
		}
	}
}
