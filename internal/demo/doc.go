// Package demo shows pgbell at work, and checks it: a throwaway Postgres, the real listener and dispatcher in this
// process, a small application with a handler of each kind, and a stream of jobs that is inserted with plain SQL on a
// connection that knows nothing of them.
//
// It promises:
//
//   - Every job that the stream inserted is looked up at the end, and its status, attempts, errors, result and effects are
//     compared with what its scenario leads to; what differs is in Summary.Unexpected. Rows that were rolled back or refused must
//     not exist, and must never have run.
//   - Nothing is left: the server, its folder, the child processes and, in a database of the user's own, the schema are gone when Run returns.
//   - Memory is bounded however long it runs.
//
// # What pickup measures
//
// The time from the commit of the insert to the start of the handler, for jobs that are due at once, on their first attempt.
// The commit counts as done when its reply has reached the inserting connection; a handler that was quicker than that reply
// counts as 0. The start is noted by the application, by the same monotonic clock:
//
//   - webhook: the request has reached the application's HTTP handler.
//   - subprocess: the script's first line has run, and its word has come through a pipe: fork and exec are in.
//   - Go: the function has been entered.
//   - sqlfunc: the dispatcher has handed the job to the way; the SQL function itself starts one statement later.
//
// A row of a bulk insert waits for the rows before it, and that counts.
package demo
