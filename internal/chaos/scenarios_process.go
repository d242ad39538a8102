package chaos

import (
	"context"
	"time"
)

// processScenarios are those of the sidecars' and the application's processes.
var processScenarios = []Scenario{
	{
		Name: "kill", Title: "a sidecar is killed (SIGKILL), others take over", Mixed: true,
		Strike:  killAny,
		Allowed: Allowed{RecoveryP50: 2500 * time.Millisecond, Recovery: 5 * time.Second},
	},
}

// killAny kills a sidecar and starts it again some time after others have taken over.
func killAny(ctx context.Context, w *World) error {
	victim := w.Any()
	strike, err := w.Begin(Fault{What: "SIGKILL", Whom: []string{victim.Name()}})
	if err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	if err := strike.End(); err != nil {
		return err
	}
	if err := pause(ctx, w.Between(0, 6*time.Second)); err != nil {
		return err
	}
	if err := victim.Start(ctx); err != nil {
		return err
	}
	return victim.AwaitReady(ctx)
}
