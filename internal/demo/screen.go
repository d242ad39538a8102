package demo

import (
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

// Screen is a View for a terminal: a block of lines that is redrawn in place, each time in one write. What is printed
// before it scrolls away as usual.
type Screen struct {
	out   io.Writer
	size  func() (width, height int)
	color bool

	mu     sync.Mutex
	drawn  []int // cells of each line of the block that is on the screen
	hidden bool  // the cursor
	closed bool
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
	_, _ = s.Write([]byte(intro.text()))
}

// Frame implements View.
func (s *Screen) Frame(shot Snapshot) {
	width, height := s.size()
	// The last column stays free: terminals differ in when they wrap. So does the last row, where the cursor waits.
	lines := render(shot, width-1, height-1)
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
	frame.WriteString(s.toTop(width))
	s.drawn = s.drawn[:0]
	for _, line := range lines {
		cells := 0
		for _, p := range line {
			cells += textCells(p.text)
			frame.WriteString(s.paint(p))
		}
		s.drawn = append(s.drawn, cells)
		frame.WriteString(clearLine + "\r\n")
	}
	frame.WriteString(clearBelow)
	_, _ = io.WriteString(s.out, frame.String())
}

func (s *Screen) paint(p piece) string {
	if !s.color || p.style == plain {
		return p.text
	}
	return "\x1b[" + strconv.Itoa(int(p.style)) + "m" + p.text + "\x1b[0m"
}

// toTop moves the cursor to the first row of the block. A terminal that has become narrower has wrapped its lines.
func (s *Screen) toTop(width int) string {
	rows := 0
	for _, cells := range s.drawn {
		rows += max(1, (cells+max(width, 1)-1)/max(width, 1))
	}
	if rows == 0 {
		return "\r"
	}
	return "\r\x1b[" + strconv.Itoa(rows) + "A"
}

// Write prints lines above the block, which the next frame draws again below them. It is meant for logs.
func (s *Screen) Write(text []byte) (int, error) {
	width, _ := s.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	above := ""
	if len(s.drawn) > 0 {
		above = s.toTop(width) + clearBelow
		s.drawn = s.drawn[:0]
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
