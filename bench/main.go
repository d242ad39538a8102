package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
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
	binary, out  string
}

// scenarios in the order that they run in.
func scenarios() []scenario { return []scenario{drainScenario(), memoryScenario()} }

func run(ctx context.Context, args []string) error {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	var set settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&set.rounds, "rounds", 3, "how often each system runs")
	flags.IntVar(&set.jobs, "jobs", 100_000, "jobs of a round")
	flags.StringVar(&set.binary, "pgbell", "../bin/pgbell", "the program to measure, where a whole process is measured")
	flags.StringVar(&set.out, "out", "results", "folder for the JSON files")
	chosen := flags.String("scenario", strings.Join(names, ","), "scenarios to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if set.rounds < 1 || set.jobs < 1 || flags.NArg() > 0 {
		return errors.New("usage: bench [-scenario NAME,NAME] [-rounds N] [-jobs N]; rounds and jobs from 1 on")
	}
	if err := os.MkdirAll(set.out, 0o755); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	for _, name := range strings.Split(*chosen, ",") {
		found := false
		for _, s := range scenarios() {
			if s.name != name {
				continue
			}
			found = true
			report, err := s.measure(ctx, set)
			if err != nil {
				return fmt.Errorf("scenario %s: %w", name, err)
			}
			if err := write(set.out, report); err != nil {
				return err
			}
			_, _ = io.WriteString(os.Stdout, report.markdown())
		}
		if !found {
			return fmt.Errorf("no scenario %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

func write(folder string, report report) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, report.Scenario+".json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
