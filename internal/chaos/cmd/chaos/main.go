// Command chaos runs the scenarios of package chaos: make chaos.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgbell/pgbell/internal/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(chaos.Child(ctx, os.Args[1:]))
	}
	ok, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (ok bool, err error) {
	var config chaos.Config
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.StringVar(&config.Pgbell, "pgbell", "bin/pgbell", "the program to test")
	flags.StringVar(&config.Released, "released", "bin/pgbell-0.1.0", "the first release, for the scenario upgrade")
	flags.Uint64Var(&config.Seed, "seed", 0, "draws faults and jobs; 0: the time")
	flags.BoolVar(&config.Full, "full", false, "the long form: some minutes a scenario, mixed faults for an hour")
	flags.BoolVar(&config.Keep, "keep", false, "keep the folders of all scenarios")
	flags.DurationVar(&config.Lasts, "lasts", 0, "how long each scenario strikes; its own time if 0")
	parallel := flags.Int("parallel", 6, "scenarios at a time")
	names := flags.String("scenarios", "", "names, separated by commas; all if empty")
	results := flags.String("results", "", "write the table of results to this file")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if config.Seed == 0 {
		config.Seed = uint64(time.Now().UnixNano())
	}
	for _, program := range []*string{&config.Pgbell, &config.Released} {
		if *program, err = filepath.Abs(*program); err != nil {
			return false, fmt.Errorf("find %s: %w", *program, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find this program: %w", err)
	}
	config.Program = []string{self}
	scenarios, err := chaos.Choose(*names)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "%d scenarios, -seed %d\n", len(scenarios), config.Seed)
	outcomes := chaos.RunAll(ctx, config, scenarios, *parallel, func(outcome chaos.Outcome) { chaos.Print(out, outcome) })
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	fmt.Fprint(out, "\n", chaos.Table(outcomes))
	if *results != "" {
		if err := os.WriteFile(*results, []byte(chaos.Page(config, outcomes)), 0o644); err != nil {
			return false, fmt.Errorf("write results: %w", err)
		}
	}
	ok = true
	for _, outcome := range outcomes {
		ok = ok && outcome.OK()
	}
	return ok, nil
}
