// Package chaos proves that whatever breaks, each job runs, soon, and is settled by its holder alone.
//
// A scenario starts a Postgres server, sidecars (real processes of the real program, with default settings) and an
// application that webhooks go to, and inserts jobs by plain SQL while faults strike at random moments. All that happens
// is noted in a history, a file outside the database: what producers intend and what the database has answered, start and
// end of each attempt, processes and faults. A trigger writes down each change of a job, with both leases. When no job is
// left, a checker compares history and tables (Check).
//
// The seed draws jobs and faults: the same seed draws the same ones. When each of them hits, and so what it hits, is up to
// the machine.
package chaos
