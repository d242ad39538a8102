// Package chaos proves that whatever breaks, each job runs, soon, and is settled by its holder alone.
//
// # What happens
//
// A scenario starts a Postgres server, sidecars (real processes of the real program, with default settings) and an
// application that webhooks go to, and inserts jobs by plain SQL while faults strike at random moments. All that happens
// is noted in a history, a file outside the database: what producers intend and what the database has answered, start and
// end of each attempt, processes and faults. A trigger writes down each change of a job, with both leases.
//
// The seed draws jobs and faults: the same seed draws the same ones. When each of them hits, and so what it hits, is up to
// the machine.
//
// # What is proven
//
// When no job is left, Check compares history and tables:
//
//   - each job that was committed has ended as its handler led it to; none that was rolled back is there, or ran; whether a
//     commit without an answer took place, the table says;
//   - no two attempts of a job ran at a time, but where the first one's lease had been taken away before the second one
//     started, which is counted; no subprocess outlived its sidecar;
//   - each lease was claimed once and ended once, and a result is that of the lease that was current: nobody else settled;
//   - attempts add up, and each failed one is noted in job_errors;
//   - only a sidecar that was struck was taken for dead, and one that ended in order left nothing behind;
//   - jobs started, and ran again after a fault, as soon as the scenario allows.
//
// Times that are allowed are stretched where the machine itself is slow (feelStrain); nothing else is.
package chaos
