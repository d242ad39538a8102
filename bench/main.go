package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		stop()
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// settings of a run, as the flags say.
type settings struct {
	rounds, jobs int
	window       time.Duration
	full         bool
	binary, out  string
	// patience with one system in one round.
	patience time.Duration
	progress io.Writer
}

func (s settings) say(format string, args ...any) {
	fmt.Fprintf(s.progress, format+"\n", args...)
}

// scenarios in the order that they run in. A name is that of all that begin with it and go on with an underscore.
func scenarios() []scenario {
	all := []scenario{drainScenario(), millionScenario(), drainDeletedScenario(), pickupScenario()}
	for _, rate := range []int{100, 1000, 4000} {
		all = append(all, rateScenario(rate))
	}
	for _, clients := range []int{1, 8, 32} {
		all = append(all, producersScenario(clients))
	}
	all = append(all, delayedScenario())
	for _, each := range []time.Duration{time.Millisecond, 50 * time.Millisecond} {
		all = append(all, shortJobsScenario(each, 64), shortJobsScenario(each, 256))
	}
	return append(all, heldScenario(), flatScenario(), idleScenario(), webhookScenario(), memoryScenario(), walScenario(),
		fleetScenario(), fleetDrainScenario())
}

// half of a window in the short run, where a full one would take too long.
func (s settings) half() time.Duration {
	if s.full {
		return s.window
	}
	return s.window / 2
}

// short are the scenarios of a run without -full and -scenarios; the others only add more of the same.
var short = []string{
	"drain", "drain_deleted", "pickup_idle", "pickup_1000", "pickup_4000", "producers_32", "delayed", "jobs_of_1ms_64",
	"jobs_of_50ms_256", "held_horizon", "flat", "idle", "webhook", "memory", "wal", "fleet",
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := settings{progress: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&set.rounds, "rounds", 3, "how often each system runs")
	flags.IntVar(&set.jobs, "jobs", 100_000, "jobs of a drain; other scenarios take as many, or a part")
	flags.DurationVar(&set.window, "window", 10*time.Second, "how long producers and timed jobs go on")
	flags.BoolVar(&set.full, "full", false, "all peers and all sizes")
	flags.StringVar(&set.binary, "pgbell", "../bin/pgbell", "the program to measure, where a whole process is measured")
	flags.StringVar(&set.out, "out", "results", "folder for the results")
	flags.DurationVar(&set.patience, "patience", 5*time.Minute, "how long one system may take for a round")
	published := flags.String("publish", "", "measure nothing: write the results in -out to this folder, and their sum into -readme")
	readme := flags.String("readme", "../README.md", "page with a place for results")
	wanted := flags.String("scenarios", "", "scenarios to run, by name or by the first words of it; default: all, or without -full a part")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *published != "" {
		return publish(set.out, *published, *readme)
	}
	if set.rounds < 1 || set.jobs < 100 || set.window < 100*time.Millisecond || flags.NArg() > 0 {
		return errors.New("usage: bench [-full] [-scenarios NAME,NAME] [-rounds N] [-jobs N] [-window D]; rounds from 1, jobs from 100, window from 100 ms on")
	}
	chosen, err := choose(*wanted, set.full)
	if err != nil {
		return err
	}
	results, err := measureAll(ctx, chosen, set)
	if err != nil {
		return err
	}
	if err := results.write(set.out); err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, results.markdown()+"\n"); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if failed := results.failures(); len(failed) > 0 {
		return fmt.Errorf("measured, but for %s", strings.Join(failed, "; "))
	}
	return nil
}

func measureAll(ctx context.Context, chosen []scenario, set settings) (_ results, err error) {
	database, err := startDatabase(ctx)
	if err != nil {
		return results{}, err
	}
	defer func() { err = errors.Join(err, database.stop()) }()
	all := results{
		When: time.Now().UTC().Truncate(time.Second), Full: set.full, Rounds: set.rounds, Jobs: set.jobs, Window: set.window.String(),
	}
	if all.Machine, err = describeMachine(ctx); err != nil {
		return all, err
	}
	if all.Postgres, err = database.describe(ctx); err != nil {
		return all, err
	}
	for _, s := range chosen {
		report, err := s.measure(ctx, database, set)
		if err != nil {
			return all, fmt.Errorf("scenario %s: %w", s.name, err)
		}
		if len(report.Systems) > 0 {
			all.Scenarios = append(all.Scenarios, report)
		}
	}
	all.Goals = judge(all)
	return all, nil
}

// choose the scenarios that a list names, or the default ones.
func choose(list string, full bool) ([]scenario, error) {
	var wanted []string
	switch {
	case list != "":
		wanted = strings.Split(list, ",")
	case !full:
		wanted = short
	}
	var chosen []scenario
	found := map[string]bool{}
	for _, s := range scenarios() {
		for _, name := range wanted {
			// A whole name means itself: drain is not drain_deleted.
			exact := slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == name })
			if s.name == name || !exact && strings.HasPrefix(s.name, name+"_") {
				chosen, found[name] = append(chosen, s), true
			}
		}
		if wanted == nil {
			chosen = append(chosen, s)
		}
	}
	for _, name := range wanted {
		if !found[name] {
			var names []string
			for _, s := range scenarios() {
				names = append(names, s.name)
			}
			return nil, fmt.Errorf("no scenario %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}
