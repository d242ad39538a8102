// Command pgbell runs background jobs out of a Postgres table. See the README, and pgbell help.
package main

import (
	"os"

	"github.com/pgbell/pgbell/dispatch/subprocess"
)

// version is set when pgbell is built.
var version = "dev"

func main() {
	subprocess.GuardMain()
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
