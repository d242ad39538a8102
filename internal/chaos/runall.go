package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Choose returns the scenarios with these names, separated by commas; all if there are none.
func Choose(names string) ([]Scenario, error) {
	all := Scenarios()
	if names == "" {
		return all, nil
	}
	var chosen []Scenario
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, scenario := range all {
			if scenario.Name == name {
				chosen, found = append(chosen, scenario), true
			}
		}
		if !found {
			known := make([]string, len(all))
			for i, scenario := range all {
				known[i] = scenario.Name
			}
			return nil, fmt.Errorf("no scenario is called %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// RunAll runs scenarios, several at a time, as most of them only wait. tell is called with each outcome as it comes, and all are
// returned in the order of the scenarios. When ctx is done, those that run are ended, and no more begin.
func RunAll(ctx context.Context, config Config, scenarios []Scenario, parallel int, tell func(Outcome)) []Outcome {
	outcomes := make([]Outcome, len(scenarios))
	free := make(chan struct{}, max(parallel, 1))
	var running sync.WaitGroup
	var telling sync.Mutex
	for i, scenario := range scenarios {
		free <- struct{}{}
		if ctx.Err() != nil {
			outcomes[i] = Outcome{Scenario: scenario, Err: context.Cause(ctx)}
			<-free
			continue
		}
		running.Go(func() {
			defer func() { <-free }()
			outcomes[i] = Run(ctx, config, scenario)
			telling.Lock()
			defer telling.Unlock()
			tell(outcomes[i])
		})
	}
	running.Wait()
	return outcomes
}
