package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tickEvery is how often a subprocess says that it lives: an orphan beside the next attempt is seen.
const tickEvery = 20 * time.Millisecond

// Child is the program of the processes that a scenario starts beside the sidecars. The arguments are "app FOLDER ADDR
// NAME" for the application that webhooks go to, and "record FOLDER SIDECAR" for a subprocess of a sidecar. It returns
// the exit code.
func Child(ctx context.Context, args []string) int {
	err := errors.New("usage: app FOLDER ADDR, or record FOLDER SIDECAR")
	code := 0
	switch {
	case len(args) == 3 && args[0] == "app":
		err = serveApplication(ctx, args[1], args[2])
	case len(args) == 3 && args[0] == "record":
		code, err = record(ctx, args[1], args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return code
}

// handling is what a handler does: the same behind a webhook and in a subprocess.
type handling struct {
	history *History
	folder  string
}

func openHandling(folder string) (*handling, error) {
	history, err := OpenHistory(filepath.Join(folder, historyFile))
	return &handling{history: history, folder: folder}, err
}

// run obeys the job, and returns the outcome: done, fail or refused.
func (h *handling) run(ctx context.Context, spec Spec, event Event, alive bool) (string, error) {
	event.Number = spec.Number
	note := func(kind Kind) error {
		event.Kind = kind
		return h.history.Note(event)
	}
	if err := note(Started); err != nil {
		return "", err
	}
	if spec.Poison {
		if err := h.kill(ctx, event.Process); err != nil {
			return "", err
		}
	}
	end := time.After(spec.Run)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			event.Cancelled, running = true, false
		case <-end:
			running = false
		case <-tick.C:
			if alive {
				if err := note(Alive); err != nil {
					return "", err
				}
			}
		}
	}
	switch {
	case event.Cancelled:
	case spec.Refused:
		event.Outcome = outcomeRefused
	case event.Attempt <= spec.Fails:
		event.Outcome = outcomeFail
	default:
		event.Outcome = outcomeDone
	}
	return event.Outcome, note(Ended)
}

const (
	outcomeDone    = "done"
	outcomeFail    = "fail"
	outcomeRefused = "refused"
)

// kill ends a sidecar, as a job does that makes it run out of memory. Without its cooperation: who is killed writes nothing.
func (h *handling) kill(ctx context.Context, process string) error {
	for {
		text, err := os.ReadFile(filepath.Join(h.folder, process+pidSuffix))
		if err == nil {
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return fmt.Errorf("read process id: %w", err)
			}
			fault := &Fault{What: "poison", Whom: []string{process}, Kills: true}
			if err := h.history.Note(Event{Kind: Struck, Fault: fault}); err != nil {
				return err
			}
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := pause(ctx, tickEvery); err != nil {
			return err
		}
	}
}

// serveApplication answers webhooks at the address, under the path of the sidecar that sends them, until ctx is done.
func serveApplication(ctx context.Context, folder, addr string) error {
	h, err := openHandling(folder)
	if err != nil {
		return err
	}
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // all that is open is cut off
	if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// maxBody of a webhook: the specs are small.
const maxBody = 1 << 20

func (h *handling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Data Spec `json:"data"`
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	attempt, numberErr := strconv.Atoi(r.Header.Get("X-Job-Attempt"))
	if err = errors.Join(err, numberErr); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lease := r.Header.Get("X-Job-Lease")
	outcome, err := h.run(r.Context(), body.Data, Event{
		Job: r.Header.Get("Webhook-Id"), Lease: lease, Attempt: attempt, Process: strings.TrimPrefix(r.URL.Path, "/"),
	}, false)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case outcome == outcomeRefused:
		http.Error(w, "refused", http.StatusUnprocessableEntity)
	case outcome == outcomeFail:
		http.Error(w, "not yet", http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, result(lease)) // who has gone needs no answer
	}
}

// result of a job names the attempt that made it.
func result(lease string) string { return fmt.Sprintf(`{"lease":%q}`, lease) }

// record runs a job as a subprocess.
func record(ctx context.Context, folder, process string) (int, error) {
	h, err := openHandling(folder)
	if err != nil {
		return 0, err
	}
	var spec Spec
	if err := json.NewDecoder(io.LimitReader(os.Stdin, maxBody)).Decode(&spec); err != nil {
		return 0, fmt.Errorf("read payload: %w", err)
	}
	attempt, err := strconv.Atoi(os.Getenv("PGBELL_ATTEMPT"))
	if err != nil {
		return 0, fmt.Errorf("read attempt: %w", err)
	}
	lease := os.Getenv("PGBELL_LEASE")
	outcome, err := h.run(ctx, spec, Event{Job: os.Getenv("PGBELL_JOB_ID"), Lease: lease, Attempt: attempt, Process: process}, true)
	switch {
	case err != nil:
		return 0, err
	case outcome == outcomeDone:
		fmt.Fprintln(os.Stdout, result(lease))
		return 0, nil
	case outcome == outcomeRefused:
		return 65, nil
	}
	return 75, nil
}
