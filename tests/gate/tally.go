package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`. Elapsed is in seconds.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	ImportPath  string // of build-output, where Package is empty
	FailedBuild string // the ImportPath whose build-output explains why Package failed
}

// state of a test: the action that ended it, or running.
const running = "running"

type test struct {
	name     string
	state    string
	elapsed  float64
	output   []string
	hasChild bool
	badChild bool // a child failed or never reported, so the failure of this test is already counted
}

type pkg struct {
	name   string
	tests  map[string]*test
	order  []*test
	output []string
}

// Tally counts tests, and prints a line for each package as it ends, with the output of what failed in it.
// Only leaves count: a test with subtests is its subtests, unless it fails by itself.
type Tally struct {
	out    io.Writer
	open   map[string]*pkg
	builds map[string][]string // ImportPath -> compiler output

	passed, failed, skipped int

	faults []string // one line for each failure and skip, for the end of the report
	timed  []timed
}

type timed struct {
	seconds float64
	name    string
}

// NewTally returns an empty tally that prints to out.
func NewTally(out io.Writer) *Tally {
	return &Tally{out: out, open: map[string]*pkg{}, builds: map[string][]string{}}
}

// Read takes events until r ends. A package that has not ended by then is a failure.
func (t *Tally) Read(r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		// Not a Scanner: one event carries a whole line of output, and such a line has no limit.
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			var ev event
			if jsonErr := json.Unmarshal(line, &ev); jsonErr != nil {
				fmt.Fprintf(t.out, "%s\n", strings.TrimRight(string(line), "\n"))
			} else {
				t.take(ev)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(t.open) {
		t.finish(event{Action: running, Package: name})
	}
	return nil
}

func (t *Tally) take(ev event) {
	switch {
	case ev.Action == "build-output":
		t.builds[ev.ImportPath] = append(t.builds[ev.ImportPath], ev.Output)
	case ev.Package == "":
		// build-fail: the package that needed the build tells of it.
	case ev.Test != "":
		t.takeTest(t.pkg(ev.Package), ev)
	case ev.Action == "output":
		p := t.pkg(ev.Package)
		p.output = append(p.output, ev.Output)
	case ev.Action == "start":
		t.pkg(ev.Package)
	case ev.Action == "pass", ev.Action == "fail", ev.Action == "skip":
		t.finish(ev)
	}
}

func (t *Tally) takeTest(p *pkg, ev event) {
	c := p.test(ev.Test)
	switch ev.Action {
	case "output":
		if !strings.HasPrefix(ev.Output, "=== ") {
			c.output = append(c.output, ev.Output)
		}
	case "pass", "fail", "skip":
		c.state, c.elapsed = ev.Action, ev.Elapsed
		if ev.Action == "pass" {
			c.output = nil
		}
	}
}

func (t *Tally) pkg(name string) *pkg {
	p := t.open[name]
	if p == nil {
		p = &pkg{name: name, tests: map[string]*test{}}
		t.open[name] = p
	}
	return p
}

func (p *pkg) test(name string) *test {
	c := p.tests[name]
	if c == nil {
		c = &test{name: name, state: running}
		p.tests[name] = c
		p.order = append(p.order, c)
		if up := p.parent(name); up != nil {
			up.hasChild = true
		}
	}
	return c
}

// parent is the nearest test above name: the name of a subtest may hold slashes of its own.
func (p *pkg) parent(name string) *test {
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return nil
		}
		name = name[:i]
		if up := p.tests[name]; up != nil {
			return up
		}
	}
}

// finish counts the tests of a package that ended with ev, and prints its line.
func (t *Tally) finish(ev event) {
	p := t.pkg(ev.Package)
	delete(t.open, ev.Package)
	passed, failed, skipped := t.passed, t.failed, t.skipped
	// Children come after their parents in order, so going backwards a parent knows of a bad child in time.
	for _, c := range slices.Backward(p.order) {
		t.count(p, c)
	}
	passed, failed, skipped = t.passed-passed, t.failed-failed, t.skipped-skipped

	switch {
	case ev.Action == "skip" && len(p.order) == 0: // no test files
		return
	case ev.Action == running:
		t.Fault(p.name, "never ended: go test stopped before it")
		failed++
	case ev.Action == "fail" && failed == 0:
		t.Fault(p.name, "failed outside of its tests (build, TestMain, exit, race)")
		failed++
	case ev.Action == "pass" && passed+failed+skipped == 0:
		t.Fault(p.name, "has test files but ran no test: run them, or take the files away")
		failed++
	}
	t.printPackage(p, ev, passed, failed, skipped)
}

func (t *Tally) count(p *pkg, c *test) {
	name := p.name + " " + c.name
	switch c.state {
	case "skip":
		t.skipped++
		t.faults = append(t.faults, "SKIP "+name)
	case "fail", running:
		if up := p.parent(c.name); up != nil {
			up.badChild = true
		}
		if c.badChild {
			return
		}
		if c.state == running {
			name += ": never reported a result"
		}
		t.failed++
		t.faults = append(t.faults, "FAIL "+name)
	default:
		if !c.hasChild {
			t.passed++
		}
	}
	if !c.hasChild {
		t.timed = append(t.timed, timed{c.elapsed, name})
	}
}

// Fault counts a failure that is not that of a test.
func (t *Tally) Fault(who, what string) {
	t.failed++
	t.faults = append(t.faults, "FAIL "+who+": "+what)
}

// OK says whether the run holds: something passed, and nothing failed or was skipped.
func (t *Tally) OK() bool { return t.passed > 0 && t.failed == 0 && t.skipped == 0 }
