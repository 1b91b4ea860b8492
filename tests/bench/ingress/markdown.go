package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/tests/bench/report"
)

const method = `## How it was measured

Every rival stands in a lane of its own: a generator, a box and a sink in three network namespaces, joined by veth pairs. All
lanes of a comparison are up at once and take turns in rounds whose order is shuffled. A cost is **CPU nanoseconds per packet**:
what the sending thread and its CPU's ksoftirqd used, so generator, wire and receiver together ("XDP_DROP alone" is that floor, and
where packets are forwarded "XDP_PASS alone" what a veth takes for running a program at all).
Figures are medians over the rounds with a bootstrap interval of 95 %%; a ratio is the median of the ratios of each round. Mpps are
on the clock and suffer from whatever else the machine does: trust ratios of CPU time.

Frames of 64 bytes are made by BPF_F_TEST_XDP_LIVE_FRAMES. Every run counts what entered the box and what reached the sink: a lane
that does not drop or pass what it should fails the run. Sluice runs what a box runs: a configuration file, parsed, compiled and
loaded by the production packages, behind its root program, with its counters.

- *prefixes*: 60 %% /32, 28 %% /24, the rest /16 to /28. *hosts*: /32 alone, for what knows nothing else (xdp-filter, hash:ip) or does it
  better (an nftables hash). *rules*: first match of 5-tuple rules (prefix, prefix, protocol, ports), the same rules one for one in iptables.
- *random*: as many flows as a table of %s holds. *fixed*: one flow, on the last prefix or rule that a flow can be on:
  Sluice remembers it, as it does whatever flow comes again soon, so this is not what a search costs. The random ones never do.
- xdp-filter's map takes 10,000 addresses and no prefixes. Lists longer than %s (nftables sets) and %s (rules of iptables) are left out of this
  run: they take too long to load or to pass. LPM_TRIE is the smallest XDP program around the kernel's own table: no VLANs, no options,
  no ports, no counters, no reasons.
`

// Markdown is the whole report.
func (r *Results) Markdown(figures []report.Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Ingress: Sluice beside its rivals\n\nA %s run of revision %s on %s, %d rounds, %s in all. `make bench` makes it again.\n\n",
		r.Size, r.Revision, r.When.Format(time.DateOnly), r.Rounds, r.Took.Round(time.Second))
	b.WriteString(r.Machine.Markdown() + "\n## Targets\n\n")
	b.WriteString(report.TargetTable("CPU ns per packet", r.Targets()))
	b.WriteString("\n## Where a rival wins\n\n")
	wins := r.Wins()
	if len(wins) == 0 {
		b.WriteString("Nowhere beyond the interval.\n")
	}
	for _, w := range wins {
		fmt.Fprintf(&b, "- %s.\n", w)
	}
	o := Full
	if r.Size == Quick.Name {
		o = Quick
	}
	fmt.Fprintf(&b, "\n"+method, report.Thousands(fmt.Sprint(o.Flows)), report.Thousands(fmt.Sprint(o.MaxNFT)), report.Thousands(fmt.Sprint(o.MaxIPTables)))
	for _, f := range figures {
		fmt.Fprintf(&b, "\n![%s](%s)\n", f.About, f.File)
	}
	r.tables(&b)
	b.WriteString("\n## Correctness\n\n" + r.shapeTable())
	b.WriteString("\n## Tables of Sluice\n\n" + r.gatewayTable())
	return b.String()
}

// tables are all figures: what each rival costs, and what part of that Sluice costs.
func (r *Results) tables(b *strings.Builder) {
	for _, e := range []struct {
		of      Experiment
		heading string
	}{{Drop, "Drop, live frames"}, {Mixed, "Drop, live frames: 1M prefixes of Sluice beside 1k rules of iptables"}, {Forward, "Forward, live frames"}, {TestRun, "The program alone, BPF_PROG_TEST_RUN"}} {
		fmt.Fprintf(b, "\n## %s\n", e.heading)
		for _, kind := range []Kind{Prefixes, Hosts, Rules} {
			for _, keys := range AllKeys {
				r.table(b, e.of, kind, keys)
			}
		}
	}
}

func (r *Results) table(b *strings.Builder, e Experiment, kind Kind, keys Keys) {
	sizes := r.sizes(e, kind)
	header := []string{"CPU ns per packet (interval)"}
	if e != TestRun {
		header[0] += " · Mpps"
	}
	ratios := []string{"Sluice's cost / the rival's"}
	for _, size := range sizes {
		column := report.Thousands(fmt.Sprint(size)) + " " + string(kind)
		header, ratios = append(header, column), append(ratios, column)
	}
	var costRows, ratioRows [][]string
	for _, c := range Rivals {
		cost, ratio := []string{c.Label}, []string{c.Label}
		measured := false
		for _, size := range sizes {
			m := r.find(e, kind, size, keys, c.Key)
			if len(m.Nanos) == 0 {
				cost, ratio = append(cost, "-"), append(ratio, "-")
				continue
			}
			measured = true
			cell := m.Cost().String()
			if e != TestRun {
				cell += " · " + report.Digits(report.Of(m.Mpps).Median)
			}
			cost = append(cost, cell)
			ratio = append(ratio, report.Ratio(r.find(e, kind, size, keys, Sluice).Nanos, m.Nanos).String())
		}
		if measured {
			costRows = append(costRows, cost)
			if c.Key != Sluice {
				ratioRows = append(ratioRows, ratio)
			}
		}
	}
	if len(costRows) > 0 {
		fmt.Fprintf(b, "\n### %s, %s\n\n%s\n%s", kind, keys, report.Table(header, costRows), report.Table(ratios, ratioRows))
	}
}

func (r *Results) shapeTable() string {
	var b strings.Builder
	b.WriteString("Each packet was judged by the plain reference model, by the compiled tables in Go, and by the loaded XDP programs (the live one, and\n" +
		"the twin that names the rule).\n\n")
	var rows [][]string
	for _, s := range r.Shapes {
		verdict := "all agree"
		if s.Disagreements > 0 {
			verdict = fmt.Sprintf("**%d disagree**, first: %s", s.Disagreements, s.First)
		}
		rows = append(rows, []string{s.Shape, report.Thousands(fmt.Sprint(s.Rules)), report.Thousands(fmt.Sprint(s.Packets)), report.Thousands(fmt.Sprint(s.Dropped)), verdict})
	}
	b.WriteString(report.Table([]string{"shape", "rules", "packets", "dropped", "model, Go, XDP"}, rows))
	return b.String()
}

func (r *Results) gatewayTable() string {
	var rows [][]string
	for _, g := range r.Gateways {
		rows = append(rows, []string{report.Thousands(fmt.Sprint(g.Size)) + " " + string(g.Kind),
			report.Digits(float64(g.Bytes)/1e6) + " MB", report.Thousands(fmt.Sprint(g.WorstProbes))})
	}
	return report.Table([]string{"content", "maps", "worst-case probes"}, rows)
}
