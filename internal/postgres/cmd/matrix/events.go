package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// row is how the run of one entry went. Tests are counted without their subtests.
type row struct {
	entry                             string
	packages, passed, failed, skipped int
	took                              time.Duration
	err                               error // of the whole run
}

// event is what go test -json and go build -json say.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// test names one; the Test of what a package itself says is empty.
type test struct{ pkg, name string }

// read counts until the events end. It copies to out what is no event and what the failed and the unfinished have said.
func (r *row) read(events io.Reader, out io.Writer) error {
	said := map[test]*strings.Builder{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.count(e, said, out)
			} else {
				fmt.Fprint(out, line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *row) count(e event, said map[test]*strings.Builder, out io.Writer) {
	key := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "output":
		if said[key] == nil {
			said[key] = &strings.Builder{}
		}
		said[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.countPackage(e, said, out)
			return
		}
		if !strings.Contains(e.Test, "/") {
			*map[string]*int{"pass": &r.passed, "fail": &r.failed, "skip": &r.skipped}[e.Action]++
		}
		if e.Action == "fail" {
			tell(said[key], out)
		}
		delete(said, key)
	}
}

// countPackage forgets what a package said. Where it failed, what is left of its tests' is told: they never ended.
func (r *row) countPackage(e event, said map[test]*strings.Builder, out io.Writer) {
	if e.Action == "skip" { // it has no tests
		delete(said, test{pkg: e.Package})
		return
	}
	r.packages++
	for key, text := range said {
		if key.pkg == e.Package {
			if e.Action == "fail" {
				tell(text, out)
			}
			delete(said, key)
		}
	}
	fmt.Fprintf(out, "%-5s %s %.1fs\n", map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action], e.Package, e.Elapsed)
}

func tell(text *strings.Builder, out io.Writer) {
	if text != nil {
		fmt.Fprint(out, text.String())
	}
}
