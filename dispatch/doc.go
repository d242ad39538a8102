// Package dispatch claims due jobs, runs them and settles them.
package dispatch
