// Package dispatch claims due jobs, runs them and settles them.
//
// # The states of a job
//
// The database is authoritative for a job's state, and its clock for all times. These are the transitions that a Dispatcher
// makes; each is one statement.
//
//	                    claim (attempts + 1, a new lease)
//	INSERT --> pending ----------------------------------> processing
//	              ^                                         |  |  |
//	              |  retry: failed, attempts left, backoff  |  |  |  done
//	              |  snooze, unavailable, back, release:    |  |  +-------> completed
//	              |  attempt - 1                            |  |
//	              |  reap: its holder is gone               |  |  fail, reap: for good, or the last attempt
//	              +-----------------------------------------+  +----------> failed
//	              |                                         |  cancel asked for, and the attempt did not complete
//	              +--- cancel_job --> cancelled <-----------+
//
// Who may do it, by which fence, and what becomes of a statement that comes too late:
//
//	claim       a worker whose row in job_workers is not dead, of jobs that are pending and due. Fence: the job's row is locked,
//	            SKIP LOCKED. Too late, it finds nothing. It writes a lease that was never used before.
//	settle      who has the job's current lease, while it is processing: done, retry, fail, snooze, unavailable, back. Too late,
//	            it finds another lease or status and changes nothing; it is counted as stale. Job.CompleteTx, complete_job and
//	            fail_job have the same fence, and answer with an error.
//	hold        the same; the job (202) stays processing, with its lease and without a worker, until its held_until.
//	mark dead   any worker, of another whose heartbeat is still the one that it judged by. Too late, it finds that there was
//	            one since, or that the row is dead already.
//	reap        any worker, of jobs whose worker's row is dead, or gone; or past their held_until, and no worker's. Fence: the
//	            job's row is locked, and is processing for that worker. It takes the lease, and with that ends its settles.
//	release     a worker, of jobs that are its own by worker_id, and whose leases it doesn't know. Fence: the lease.
//	cancel      anybody: a pending job ends at once; a processing one when its holder lets go, or is reaped.
//	heartbeat   a worker, of its own row, unless that is dead. Too late, it finds no row: it cancels all, and starts anew.
//	unregister  a worker, of its own row: deleted if it holds no jobs, else dead, so that they are reaped at once.
//
// attempts is counted at the claim, once for each lease, and is no fence: snoozes and hand-backs give it back. crashes counts
// deaths of the worker. A death in company, of a worker that held other jobs too, gives the attempt back; the first death
// re-runs at once, from the second on a job waits (30 s, 2 min, 8 min, ...) and runs alone; it fails at max_attempts.
//
// # Presence, and when a worker is dead
//
// A worker is a row in job_workers, new at each start of a process; it heartbeats that row, often only while it holds jobs: the
// claim that takes it from none to some is a heartbeat in the same statement. Beside it the listener holds a lock, P, on a connection of its
// own, which is free as soon as the server sees that go. Others look at workers that hold jobs. One is dead when its
// heartbeat has not changed for its lease time; or when P was free at each look for dead_after and no heartbeat came meanwhile. A
// worker that knows that P is gone heartbeats three times in dead_after. In the first lease time after the server's start only
// heartbeats count, as all locks went with their sessions, and a worker may have yet to notice.
//
// # How a worker protects its jobs from itself
//
// Its own timer counts from the sending of its last heartbeat that arrived, the others' from its arrival: its own comes first.
// A third of the lease time before the end it claims no more and cancels its jobs, so that they are over when others
// may take them; what a handler says by then is settled, if the lease still stands. Declared dead, it cancels all, waits
// for a claim under way, whose jobs it cancels too, and registers under another number.
// An answer of a claim that was lost, or a settle that was given up, may leave jobs with a holder that doesn't know of them: for two
// lease times it compares what it holds with the database, and releases them. Else it compares each third of the lease time.
//
// # Where it may crash
//
//	before the claim's commit         nothing has happened
//	after it, before the job starts   as while it runs: dead within dead_after, reaped, the attempt is used up
//	while the job runs                its subprocesses die with it; the job is reaped, and runs again
//	before the settle's commit        the same, although the work is done: so handlers are idempotent, or use CompleteTx
//	after it, unanswered              the job has ended; written once more, it is stale
//	marked another dead, not reaped   the next look of any worker finds it dead
//	in a shutdown                     what was handed back is pending; the rest as while it runs
//	stopped, and goes on later        its heartbeat finds no row; what it settles is stale
//	the server                        what was committed stands; workers wait for it, and cancel their jobs in time
//
// # What a Dispatcher promises
//
// At least once: a claim is committed before its job starts, and a job leaves processing only by a settle of its holder or
// by the reaper. A job can run again after a crash, so handlers use the job's id as an idempotency key, or commit their
// effects together with the completion (Job.CompleteTx). A worker that is well and reaches the database is never reaped.
//
// Not twice at the same time, as long as clocks run evenly. So these are outside of it, and only the settle's fence holds: a
// process that was stopped, from when it goes on until its handlers stop; a Go function that ignores its context; a worker
// whose network is cut and whose sessions the server ends before its own timer does (a firewall that resets both sides, or a
// lease time well above the 14 s that TCP keepalives take), for at most two thirds of the lease time.
//
// lease.pml is a model of all this: whole, it shows no error, and one with each step left out.
//
// # The order of jobs
//
// By priority, the higher first, then by due time, over all types that have free slots; a type at its limit, paused, with an
// open breaker, or without a handler here is left out and is never in the way. The order is that of the levels (a type and
// a priority) which the Dispatcher knows of when it claims; a level that is new, or beyond 32 that have due jobs, may have to
// wait for its turn, up to 250 ms while a backlog is drained, 2 s where looking for levels takes long.
//
// # How a claim finds jobs
//
// It looks into the levels that are known, each from a mark on (levels), so that what it reads is what it takes. A walk over
// the index, without locks, finds what claims miss: new levels, jobs before a mark, jobs that others have locked, and when
// the next one is due. A Dispatcher that goes to rest knows of no due job: whatever woke it, it has walked since, or will
// within 100 ms (2 s where a walk takes long), or the Bell has told it to when it fell asleep.
package dispatch
