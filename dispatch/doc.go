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
//	              |  snooze, unavailable, back: attempt - 1 |  |  +-------> completed
//	              |  reap: its holder is gone               |  |  fail: for good, or the last attempt
//	              +-----------------------------------------+  +----------> failed
//	              |                                         |  cancel asked for, and the attempt did not complete
//	              +--- cancel_job --> cancelled <-----------+
//
// Who may do what, and by which fence:
//
//   - claim: any living worker, of pending jobs that are due, locked FOR NO KEY UPDATE SKIP LOCKED. It needs a row in
//     job_workers that is not dead, and writes a fresh random lease.
//   - settle (done, retry, fail, snooze, unavailable, back): who has the job's current lease, while it is processing. A settle that
//     comes too late finds another lease, or another status, and changes nothing; it is counted as stale.
//   - hold: an accepted job (OutcomeHeld) stays processing without a worker until its held_until; complete_job and fail_job
//     settle it by its lease.
//   - reap: any worker, of jobs whose worker is dead, after it has marked that worker's row dead; or whose held_until has
//     passed and that no worker holds. It takes the lease away, and so whatever the old holder writes later is stale.
//
// attempts is counted at the claim and is no fence: snoozes and hand-backs give it back. A lease is never used twice.
//
// # What a Dispatcher promises
//
// At least once: a claim is committed before its job starts, and a job leaves processing only by a settle of its holder or
// by the reaper. A job can run again after a crash, so handlers use the job's id as an idempotency key, or commit their
// effects together with the completion (Job.CompleteTx).
//
// Not twice at the same time, as long as clocks run evenly: a worker that can't reach the database cancels its jobs before
// its lease time is over, and others take them only after it. Nobody can stop a Go function that ignores its context.
//
// A worker is dead when its heartbeat is older than its lease time; or, where the listener's presence lock is used, when
// that was missing at each look for dead_after and no heartbeat came meanwhile. A worker that finds itself declared dead cancels all
// that it runs, and starts anew under another number. An answer of a claim that was lost leaves jobs with a holder that doesn't
// know of them: it compares what it holds with the database, and gives them back.
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
