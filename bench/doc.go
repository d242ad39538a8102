// Command bench measures pgbell on a throwaway Postgres of its own, with durable settings, and writes what it measured to
// results/*.json and as Markdown to stdout.
//
//	go run . [-scenario NAME,NAME] [-rounds 3] [-jobs 100000] [-out results] [-pgbell ../bin/pgbell]
//
// A scenario compares systems that do the same work. Each round runs all its systems, in an order that turns from round to
// round, each on a fresh copy of the same database after a checkpoint; so what else the machine does meanwhile meets all of
// them alike. A table shows the median of the rounds, and their range.
//
// It is a module of its own, so that what pgbell is compared with is not among pgbell's dependencies.
package main
