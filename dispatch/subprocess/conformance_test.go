package subprocess_test

import (
	"testing"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/subprocess"
	"github.com/pgbell/pgbell/internal/conformance"
)

// scripts are what a shell does to behave so; the shell is the operator's own choice here, pgbell uses none.
var scripts = map[conformance.Behaviour]string{
	conformance.Echo: `cat`,
	conformance.Describe: `printf '{"id": "%s", "type": "%s", "attempt": %s, "max_attempts": %s, "lease": "%s"}' \
		"$PGBELL_JOB_ID" "$PGBELL_JOB_TYPE" "$PGBELL_ATTEMPT" "$PGBELL_MAX_ATTEMPTS" "$PGBELL_LEASE"`,
	conformance.Flaky:     `[ "$PGBELL_ATTEMPT" -ge 3 ] || { echo "flaky attempt $PGBELL_ATTEMPT" >&2; exit 75; }`,
	conformance.Hopeless:  `echo hopeless >&2; exit 1`,
	conformance.Permanent: `echo permanent >&2; exit 65`,
	conformance.Slow:      `trap '' TERM; sleep 3600 & wait; sleep 3600`,
	conformance.Loud:      `i=0; while [ $i -lt 5000 ]; do echo 'loud loud loud loud loud'; i=$((i+1)); done >&2; exit 1`,
	conformance.Silent:    `exit 0`,
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T, _ string, behaviour conformance.Behaviour) dispatch.Handler {
		handler, err := subprocess.New(subprocess.Config{Command: []string{"/bin/sh", "-c", scripts[behaviour]}})
		if err != nil {
			t.Fatal(err)
		}
		return handler
	})
}
