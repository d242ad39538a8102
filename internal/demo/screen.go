package demo

import (
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
	clearScreen = "\x1b[H\x1b[2J"
)

// minBlock is how many rows the block gets at least, if need be at the cost of what was printed before it.
const minBlock = 10

// Screen is a View for a terminal: a block of lines below the intro that is redrawn in place, each time in one write. When
// the terminal's size changes, everything is drawn anew.
type Screen struct {
	out   io.Writer
	size  func() (width, height int)
	color bool

	mu            sync.Mutex
	intro         string
	width, height int  // at the last frame; 0 before the first
	rows          int  // of the block that is on the screen, above the cursor
	hidden        bool // the cursor
	closed        bool
}

// NewScreen returns a View on a terminal that is written to by out, and whose size is asked for before each frame. What can't be
// written is dropped.
func NewScreen(out io.Writer, size func() (width, height int), color bool) *Screen {
	return &Screen{out: out, size: size, color: color}
}

// Interval implements View.
func (*Screen) Interval() time.Duration { return 200 * time.Millisecond }

// Intro implements View.
func (s *Screen) Intro(intro Intro) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intro = strings.ReplaceAll(intro.text(), "\n", "\r\n")
	_, _ = io.WriteString(s.out, s.intro)
}

// Frame implements View.
func (s *Screen) Frame(shot Snapshot) {
	width, height := s.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	var frame strings.Builder
	if !s.hidden {
		s.hidden = true
		frame.WriteString(hideCursor)
	}
	if s.width != 0 && (width != s.width || height != s.height) {
		// The terminal may have wrapped and scrolled what was drawn: nobody knows where it is.
		frame.WriteString(clearScreen + s.intro)
		s.rows = 0
	}
	s.width, s.height = width, height
	frame.WriteString(s.toTop())
	// The last column stays free: terminals differ in when they wrap. So does the last row, where the cursor waits.
	room := max(height-1-introRows(s.intro, width), min(minBlock, height-1))
	lines := render(shot, width-1, room)
	for _, line := range lines {
		for _, p := range line {
			frame.WriteString(s.paint(p))
		}
		frame.WriteString(clearLine + "\r\n")
	}
	s.rows = len(lines)
	frame.WriteString(clearBelow)
	_, _ = io.WriteString(s.out, frame.String())
}

// introRows is how many rows of a terminal a text takes.
func introRows(text string, width int) int {
	rows := 0
	for line := range strings.Lines(text) {
		rows += max(1, (textCells(strings.TrimSuffix(line, "\r\n"))+width-1)/width)
	}
	return rows
}

func (s *Screen) paint(p piece) string {
	if !s.color || p.style == plain {
		return p.text
	}
	return "\x1b[" + strconv.Itoa(int(p.style)) + "m" + p.text + "\x1b[0m"
}

// toTop moves the cursor to the first row of the block.
func (s *Screen) toTop() string {
	if s.rows == 0 {
		return "\r"
	}
	return "\r\x1b[" + strconv.Itoa(s.rows) + "A"
}

// Write prints lines above the block, which the next frame draws again below them. It is meant for logs.
func (s *Screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	above := ""
	if s.rows > 0 {
		above = s.toTop() + clearBelow
		s.rows = 0
	}
	if _, err := io.WriteString(s.out, above+strings.ReplaceAll(string(text), "\n", "\r\n")); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Close implements View. The last frame stays on the screen.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.hidden {
		s.hidden = false
		_, _ = io.WriteString(s.out, showCursor)
	}
}
