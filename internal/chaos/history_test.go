package chaos_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

// Two processes append; a third was killed while it wrote.
func TestHistoryKeepsWholeLinesInOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "history")
	for i, kind := range []chaos.Kind{chaos.Ended, chaos.Started} {
		history, err := chaos.OpenHistory(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := history.Note(chaos.Event{At: began.Add(-time.Duration(i) * time.Second), Kind: kind, Job: "job"}); err != nil {
			t.Error(err)
		}
		if err := history.Close(); err != nil {
			t.Error(err)
		}
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"kind":"aliv`); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	events, err := chaos.ReadHistory(path)
	if err != nil || len(events) != 2 || events[0].Kind != chaos.Started || events[1].Kind != chaos.Ended {
		t.Errorf("events %+v, error %v", events, err)
	}
	if err := os.WriteFile(path, []byte("no JSON\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := chaos.ReadHistory(path); err == nil {
		t.Error("a broken line was read")
	}
}
