package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// slowest is how many tests the report names as slow.
const slowest = 10

func (t *Tally) printPackage(p *pkg, ev event, passed, failed, skipped int) {
	word := "ok  "
	if failed+skipped > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(t.out, "%s %7.1fs %6d tests  %s\n", word, ev.Elapsed, passed+failed+skipped, p.name)
	if failed+skipped == 0 {
		return
	}
	for _, c := range p.order {
		if c.state != "pass" {
			t.indent(c.output)
		}
	}
	t.indent(t.builds[ev.FailedBuild])
	t.indent(p.output)
}

func (t *Tally) indent(output []string) {
	for line := range strings.Lines(strings.Join(output, "")) {
		fmt.Fprintf(t.out, "     | %s\n", strings.TrimRight(line, "\n"))
	}
}

// Report prints the slowest tests, what was wrong, and last of all the summary.
func (t *Tally) Report() {
	slices.SortStableFunc(t.timed, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	if len(t.timed) > 0 {
		fmt.Fprintln(t.out, "\nslowest tests:")
	}
	for _, s := range t.timed[:min(slowest, len(t.timed))] {
		fmt.Fprintf(t.out, "  %7.2fs  %s\n", s.seconds, s.name)
	}
	fmt.Fprintln(t.out)
	for _, f := range t.faults {
		fmt.Fprintln(t.out, f)
	}
	if t.skipped > 0 {
		fmt.Fprintln(t.out, "A skip is a failure: what a test needs must be there, so install it or fail with a clear text.")
	}
	if t.passed+t.failed+t.skipped == 0 {
		fmt.Fprintln(t.out, "No test ran, and that is a failure.")
	}
	fmt.Fprintln(t.out, t.Summary())
}

// Summary is 'N passed, N failed', with ', N skipped' where there were any.
func (t *Tally) Summary() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
