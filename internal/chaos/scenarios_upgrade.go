package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"
)

// releasedSchema is the version of the schema that the first release speaks.
const releasedSchema = "2"

// upgradeScenarios have two versions of pgbell side by side.
var upgradeScenarios = []Scenario{
	{
		Name: "upgrade", Title: "from the first release to this version and back: migrated in the middle, sidecars restarted in turn",
		Load: Load{Rate: 60}, Prepare: prepareRelease, Strike: changeVersion, Lasts: 50 * time.Second,
		Allowed: Allowed{Late: 4 * time.Second},
	},
}

// prepareRelease has all begin with the first release's program on its own schema.
func prepareRelease(ctx context.Context, w *World) error {
	if _, err := os.Stat(w.config.Released); errors.Is(err, fs.ErrNotExist) || w.config.Released == "" {
		return Skip{"the first release could not be built: its commit isn't in this copy's history"}
	}
	w.program = w.config.Released
	return w.pgbell(ctx, w.config.Pgbell, "migrate", "down", "--to", releasedSchema)
}

// changeVersion migrates up while the first release's sidecars run, and replaces them in turn; or replaces this version's
// sidecars in turn, and then migrates down.
func changeVersion(ctx context.Context, w *World) error {
	up := w.program == w.config.Released
	strike, err := w.Begin(Fault{What: map[bool]string{true: "upgrade", false: "back to the first release"}[up], Harmless: true})
	if err != nil {
		return err
	}
	if up {
		if err := w.pgbell(ctx, w.config.Pgbell, "migrate", "up"); err != nil {
			return err
		}
		if err := pause(ctx, w.Between(0, 3*time.Second)); err != nil {
			return err
		}
		w.program = w.config.Pgbell
	} else {
		w.program = w.config.Released
	}
	if err := restartInTurn(ctx, w); err != nil {
		return err
	}
	if !up {
		if err := pause(ctx, w.Between(0, 3*time.Second)); err != nil {
			return err
		}
		// Nothing is forced: what the way down waits for is gone.
		if err := w.pgbell(ctx, w.config.Pgbell, "migrate", "down", "--to", releasedSchema); err != nil {
			return err
		}
	}
	return strike.End()
}

// pgbell runs a command of a pgbell program on the database.
func (w *World) pgbell(ctx context.Context, program string, arguments ...string) error {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + w.URL()}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run pgbell %v: %w: %s", arguments, err, output)
	}
	return nil
}
