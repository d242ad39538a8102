// Command bench measures pgbell beside its floor and its peers, on a throwaway Postgres of its own with durable settings, and
// writes what it measured as JSON, Markdown and plots.
//
//	go run . [-full] [-scenarios NAME,NAME] [-rounds 3] [-jobs 100000] [-window 10s] [-out results] [-pgbell ../bin/pgbell]
//
// # How it measures
//
// A scenario compares systems that do the same work. Each round runs all its systems, in an order that turns from round to
// round, each on a fresh copy of its own template database after a checkpoint; so what else the machine does meanwhile meets
// all of them alike. Tables show the median of the rounds, and their range; a goal is a ratio of such medians of one run.
//
// Every job has a number in its payload. A handler notes the number and the time, and nothing else; so it is known for each
// system that each job ran, and ran once. At the end of a round the database must say the same, or the round is an error: a
// wrong system has no figures. All processes are on one machine and read one clock. Pickup is the time from the return of the
// insert's commit to the start of the handler.
//
// # What the systems are
//
// pgbell runs with its shipped defaults save concurrency, as a library with its listener, or as the real program where a
// whole process is measured. There is no path of its own for the benchmark: every job passes slots, timeouts, metrics, fences.
//
// The floor is the least that a job can cost on the same table with the same indexes: loops that claim a batch, settle it, and
// know nothing of types, limits, timeouts or crashes. The short run tries its grid of batches and connections in a warm-up
// round and keeps the best two.
//
// The peers are River and gue in this process, graphile-worker and pg-boss in Node processes of their own (see peers/protocol.mjs),
// each tuned as its own documentation advises, and, in the full run, with its defaults. What was tuned is told in the results.
// Jobs are inserted from this process for all of them, one transaction each, by the statement or the client that the peer
// documents: no peer pays for a slower producer.
//
// It is a module of its own, so that what pgbell is compared with is not among pgbell's dependencies.
package main
