package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/tests/bench/report"
)

const method = `## How it was measured

One or two neighbors, each a BIRD 2 in a network namespace of its own, announce the same table: /24s whose paths have two to five ASes
behind the neighbor's and a community; five prefixes share one. A rival is a fresh process in a fresh namespace, joined to them by veth
pairs: Sluice is the daemon as it is released, without filters on packets, BIRD has a kernel protocol and an import filter by prefix. Of two
neighbors both install both next hops. They take turns, and who begins a round changes; all of it shares the machine's processors, the
neighbors included.

- Times begin when %d KB of the table have come in. *RIB*: the rival counts every path; it is asked once a second, or more seldom where the answer takes
  it long, and when the kernel has all.
  *Kernel*: %s prefixes, drawn at random, are in the main table with all next hops, looked at every %s; afterwards the kernel's count of
  prefixes must be the table's.
- *Rests*: the last time that its process took more than %.0f %% of a processor. *Processor time* is that process's until then, with what the
  kernel does on its behalf. Memory is its resident set (VmHWM, VmRSS); the kernel's table is not in it.
`

// Markdown is the whole report.
func (r *Results) Markdown(figures []report.Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# BGP: what a full table costs\n\nA %s run of revision %s on %s, %s in all. `make bench-bgp` makes it again.\n\n",
		r.Size, r.Revision, r.When.Format(time.DateOnly), r.Took.Round(time.Second))
	b.WriteString(r.Machine.Markdown())
	fmt.Fprintf(&b, "\n## %s routes\n", report.Thousands(fmt.Sprint(r.Routes)))
	for _, peers := range r.peers() {
		fmt.Fprintf(&b, "\n### From %s\n\n%s", neighbors(peers), r.table(peers))
	}
	for _, f := range figures {
		fmt.Fprintf(&b, "\n![%s](%s)\n", f.About, f.File)
	}
	fmt.Fprintf(&b, "\n"+method, handshake>>10, report.Thousands(fmt.Sprint(probeCount)), lookEvery, 100*busy)
	return b.String()
}

func neighbors(n int) string {
	if n == 1 {
		return "one neighbor"
	}
	return fmt.Sprintf("%d neighbors", n)
}

// table holds the rivals against each other; a ratio is that of the same round.
func (r *Results) table(peers int) string {
	header := []string{"medians"}
	for _, rival := range Rivals {
		header = append(header, rival.Label)
	}
	var rows [][]string
	for _, c := range costs {
		row := []string{c.name + ", " + c.unit}
		for _, rival := range Rivals {
			row = append(row, report.Of(r.values(rival.Key, peers, c)).String())
		}
		rows = append(rows, append(row, report.Ratio(r.values(Sluice, peers, c), r.values(BIRD, peers, c)).String()))
	}
	return report.Table(append(header, "Sluice / BIRD"), rows)
}
