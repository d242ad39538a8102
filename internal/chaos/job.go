package chaos

import "time"

// Job types. Each has its handler in the configuration of the sidecars.
const (
	typeWeb     = "web"     // a webhook
	typeSlow    = "slow"    // a webhook that takes longer
	typeScript  = "script"  // a subprocess
	typeFlaky   = "flaky"   // a webhook whose first attempts fail
	typeRefused = "refused" // a webhook that fails for good, or until its attempts are used up
	typePoison  = "poison"  // a webhook that kills its sidecar
)

// Spec is a job as its producer means it. It travels in the payload, and the handler obeys it.
type Spec struct {
	Number      int           `json:"n"`
	Type        string        `json:"type"`
	Run         time.Duration `json:"run,omitempty"`
	Fails       int           `json:"fails,omitempty"` // as many attempts fail
	Refused     bool          `json:"refused,omitempty"`
	Poison      bool          `json:"poison,omitempty"`
	Priority    int           `json:"priority,omitempty"`
	Delay       time.Duration `json:"delay,omitempty"`
	MaxAttempts int           `json:"max_attempts,omitempty"`
	UniqueKey   string        `json:"unique_key,omitempty"`
}

// wants is the status that the job must end in.
func (s Spec) wants() string {
	if s.Refused || s.Poison || s.Fails >= s.MaxAttempts {
		return statusFailed
	}
	return statusCompleted
}

const (
	statusPending    = "pending"
	statusProcessing = "processing"
	statusCompleted  = "completed"
	statusFailed     = "failed"
	statusCancelled  = "cancelled"
)
