// Package subprocess runs each attempt of a job as a child process: the cheapest contract that any language can keep.
//
// # What a child gets
//
// The command is started as it is configured, without a shell; nothing of a job is ever part of its arguments. The job's
// payload, and nothing after it, comes on standard input; a child needn't read it. The environment names the job:
//
//	PGBELL_JOB_ID         the same at every attempt: the idempotency key
//	PGBELL_JOB_TYPE       the job's type, as it was inserted: untrusted text
//	PGBELL_ATTEMPT        this attempt, counted from 1
//	PGBELL_MAX_ATTEMPTS   how many there are in all
//	PGBELL_LEASE          names this claim; complete_job and fail_job ask for it
//	PGBELL_DEADLINE       when the child is killed, RFC 3339, in UTC
//
// The rest of the environment is inherited, but for PG* (so PGBELL_* too) and DATABASE_URL, which may hold pgbell's own
// secrets; Config.Inherit, Config.Withhold and Config.Env change that.
//
// # What its exit means
//
//	0           done; standard output is the job's result if it is valid JSON
//	65          failed for good (EX_DATAERR of sysexits.h)
//	75          this attempt failed, try again (EX_TEMPFAIL)
//	any other,
//	a signal    this attempt failed, try again
//
// The error of a failed attempt is the exit status and the end of standard error and of standard output. A command that
// can't be started makes the handler unavailable: no attempt is used up.
//
// # How it ends
//
// A child and what it starts are one process group. At the attempt's deadline that group is gone: it gets SIGTERM
// Config.KillGrace before the deadline, and SIGKILL at it. When an attempt is cancelled for another reason, SIGTERM comes
// at once and SIGKILL after KillGrace, sooner if others wait for its end. Once it was sent SIGTERM, a child that exits with
// 0 isn't taken for done, since many programs do so when they are told to stop; 65 still counts. What a child leaves behind
// in its group is killed when it exits, whatever its status. A process that calls setsid or setpgid leaves the group, and
// with it all that is promised here.
//
// # When the sidecar dies
//
// A Guard is a second process that knows the groups which are alive. The kernel closes the pipe between the two when the
// sidecar dies, of SIGKILL too, and the guard then kills those groups. On Linux the children themselves also get SIGKILL
// from the kernel when the sidecar dies, which covers the moment between the start of a child and the guard's hearing of
// it. What isn't covered: on other systems that moment; a machine that kills sidecar and guard at once without their
// children; a child that runs as another user (setuid).
package subprocess
