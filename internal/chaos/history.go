package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Kind of an Event.
type Kind string

// The kinds, by who writes them.
const (
	// The producer: before a commit, and after it. Unknown is a commit whose answer was lost.
	Intended   Kind = "intended"
	Committed  Kind = "committed"
	RolledBack Kind = "rolled back"
	Unknown    Kind = "unknown"
	// The application: an attempt. Alive is written each tickEvery by a subprocess.
	Started Kind = "started"
	Alive   Kind = "alive"
	Ended   Kind = "ended"
	// The scenario: processes, and what strikes them. Stopping is a process that was asked to end.
	Up       Kind = "up"
	Ready    Kind = "ready"
	Stopping Kind = "stopping"
	Down     Kind = "down"
	Struck   Kind = "struck"
	Relieved Kind = "relieved"
	Clock    Kind = "clock"
)

// Event is a line of the history. All times are the host's: the database's clock is not to be trusted here.
type Event struct {
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	// Of attempts.
	Job       string `json:"job,omitempty"`
	Lease     string `json:"lease,omitempty"`
	Attempt   int    `json:"attempt,omitempty"`
	Number    int    `json:"number,omitempty"` // of the job, by its producer
	Outcome   string `json:"outcome,omitempty"`
	Cancelled bool   `json:"cancelled,omitempty"` // the sidecar gave the request up before it ended
	// Process is a sidecar's, or the application's: a new name at each start.
	Process string `json:"process,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Exit    string `json:"exit,omitempty"` // how it ended
	// Of producers: the jobs of one transaction.
	Jobs []Spec `json:"jobs,omitempty"`
	// Of faults.
	Fault *Fault `json:"fault,omitempty"`
	// Offset of the database's clock from the host's, from now on.
	Offset time.Duration `json:"offset,omitempty"`
}

// History is the file that all processes of a scenario append to, outside of the database that is being tested.
type History struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// OpenHistory opens the file for appending, and makes it if it isn't there.
func OpenHistory(path string) (*History, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	return &History{path: path, file: file}, nil
}

// Note appends an event, at the present time unless it has one, by a single write: a process that is killed leaves whole
// lines, and lines of several processes don't mix.
func (h *History) Note(event Event) error {
	if event.At.IsZero() {
		event.At = time.Now()
	}
	line, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("note event: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("note event: %w", err)
	}
	return nil
}

// Close ends writing.
func (h *History) Close() error { return h.file.Close() }

// ReadHistory returns all events, in the order of their times.
func ReadHistory(path string) ([]Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	var events []Event
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		var event Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("read history, event %d: %w", len(events)+1, err)
		}
		events = append(events, event)
	}
	sortByTime(events)
	return events, nil
}
