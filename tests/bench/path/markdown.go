package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

const method = `## How it was measured

A lane is client, gateway, wire, gateway and server in namespaces of their own, joined by veth pairs; all lanes of an experiment are
up at once and take turns in rounds whose order is shuffled. Load, gateways and softirqs share one core, and a cost is **CPU time per
operation** (per MB of streams): that of both ends and of the core's ksoftirqd. It has no idle time in it and does not depend on how
busy the machine is with other things; rates and latencies, which are on the clock, do. Figures are medians over the rounds with a
bootstrap interval of 95 %; a ratio is the median of the ratios of each round, so what
slowed a round is not in it, while the two costs of "a against b" are each the median of its own. p99 and p99.9 are of all rounds together.

RR is a request of one byte and a response of one, over and over; CRR does so on a new connection each time, closed by FIN. ×16 has 16
connections at once, a thread for each end. A lane's turn of these is 20 ms (more where an operation takes milliseconds), for what slows
a shared machine changes within seconds. STREAM is iperf3, a second each time, with a
socket buffer of 512 KB: with more, queues overflow on one core, and what is measured is TCP's recovery. Segmentation offloads (TSO, GSO, GRO) are off in all
lanes, so each of them forwards packets of 1500 bytes.

Before it is measured, each lane shows that it does what it claims: a connection to what is served comes about; one to a denied
address, and to a port that is not served, does not where there is a policy, and does where there is none; and the gateway's own
count of forwarded packets rises, or stands still where eBPF forwards.

`

const lanesText = `- *node to node*: from gateway to gateway, with no workload behind: what the rest adds to.
- *kernel forwarding*: no rules, and no conntrack in these namespaces. *XDP_PASS*: the same with an XDP program on both uplinks that
  does nothing. **A veth copies each TCP packet before it runs XDP natively; a NIC does not.** So "Sluice, tcx alone" (xdp.mode: none) is
  shown as well, in which tcx judges policy.ingress.
- *conntrack*: one rule of nftables that asks for the state. *nftables policy*: established accepted, %s prefixes in a set denied
  both ways, what is served accepted, all else dropped, in both gateways.
- *eBPF host routing alone*: FIB lookup, bpf_redirect_neigh, bpf_redirect_peer and nothing else.
- *Sluice*: a whole configuration in both gateways, applied by host, tc and XDP as the daemon does: %s denied prefixes as rules
  of their own, a third each in policy.ingress, ingress and egress of the workload; what is served accepted; default drop; conntrack.
  *no rules*: nothing but conntrack and the forwarding matrix. Sluice has no mode without conntrack, so there is no such lane.
- Egress filtering: the client's gateway denies, the server's forwards plainly. iptables and nftables judge what leaves by the uplink alone,
  every packet of it; Sluice (tcx alone) remembers a flow's verdict, so CRR is where its rules are searched.
`

// Markdown is the whole report.
func (r *Results) Markdown(figures []report.Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The path: node networking and egress filtering\n\nA %s run of revision %s on %s, %d rounds of requests and %d of streams (%d past filters), %s in all. `make bench-path` makes it again.\n\n",
		r.Size, r.Revision, r.When.Format(time.DateOnly), r.Rounds, r.Streams, streams(r.Streams, EgressFiltering), r.Took.Round(time.Second))
	b.WriteString(r.Machine.Markdown() + "\n## Targets\n\n")
	b.WriteString(report.TargetTable("CPU µs per operation or MB", r.Targets()))
	b.WriteString("\n## Where a rival wins\n\n")
	wins := r.Wins()
	if len(wins) == 0 {
		b.WriteString("Nowhere beyond the interval.\n")
	}
	for _, w := range wins {
		fmt.Fprintf(&b, "- %s.\n", w)
	}
	policy := report.Thousands(fmt.Sprint(r.Policy))
	b.WriteString("\n" + method + fmt.Sprintf(lanesText, policy, policy))
	for _, f := range figures {
		fmt.Fprintf(&b, "\n![%s](%s)\n", f.About, f.File)
	}
	b.WriteString("\n## Where the time goes\n\n")
	r.profileTables(&b)
	b.WriteString("\n## Node networking\n")
	for _, s := range Shapes {
		r.nodeTable(&b, s)
	}
	b.WriteString("\n## Egress filtering\n")
	for _, s := range Shapes {
		r.egressTables(&b, s)
	}
	b.WriteString("\n## Beside what others published\n\nMachines, kernels and networks differ, and theirs have two hosts and a wire where we have one core: compare relations.\n\n")
	b.WriteString(r.publishedTable())
	return b.String()
}

func (r *Results) nodeTable(b *strings.Builder, s Shape) {
	var rows [][]string
	plain, policy := r.find(NodeNetworking, s, 0, Plain), r.find(NodeNetworking, s, 0, NFT)
	for _, c := range Networking {
		m := r.find(NodeNetworking, s, 0, c.Key)
		if len(m.Micros) == 0 {
			continue
		}
		row := []string{c.Label, m.Cost().String(), report.Ratio(m.Micros, plain.Micros).String(), report.Ratio(m.Micros, policy.Micros).String(), m.rate().String()}
		if s.Kind != load.Stream {
			for _, q := range [][]float64{m.P50, m.P99, m.P999} {
				row = append(row, report.Of(q).String())
			}
		}
		rows = append(rows, append(row, report.Thousands(fmt.Sprint(m.Retransmitted))))
	}
	if len(rows) == 0 {
		return
	}
	header := []string{"lane", s.unit(), "/ kernel forwarding", "/ nftables policy", s.rateUnit()}
	if s.Kind != load.Stream {
		header = append(header, "p50, µs", "p99, µs", "p99.9, µs")
	}
	fmt.Fprintf(b, "\n### %s\n\n%s", s, report.Table(append(header, "segments sent again"), rows))
}

func (r *Results) egressTables(b *strings.Builder, s Shape) {
	sizes := r.sizes(EgressFiltering, s)
	if len(sizes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s\n", s)
	type column struct {
		what string
		of   func(Measurement) []float64
	}
	columns := []column{
		{s.unit(), func(m Measurement) []float64 { return m.Micros }},
		{s.rateUnit(), func(m Measurement) []float64 { return m.Rate }},
	}
	if s.Kind != load.Stream {
		columns = append(columns, column{"p50, µs", func(m Measurement) []float64 { return m.P50 }}, column{"p99, µs", func(m Measurement) []float64 { return m.P99 }})
	}
	for _, c := range columns {
		header := []string{c.what}
		for _, size := range sizes {
			header = append(header, report.Thousands(fmt.Sprint(size))+" denied")
		}
		var rows [][]string
		for _, lane := range Filtering {
			row := []string{lane.Label}
			for _, size := range sizes {
				row = append(row, report.Of(c.of(r.find(EgressFiltering, s, size, lane.Key))).String())
			}
			rows = append(rows, row)
		}
		fmt.Fprintf(b, "\n%s", report.Table(header, rows))
	}
}

// profileTables say which functions take more of Sluice than of kernel forwarding and of host routing alone.
func (r *Results) profileTables(b *strings.Builder) {
	const most = 14
	if len(r.Profiles) == 0 {
		b.WriteString("No profiles were made: perf is missing, or only a part was run.\n")
		return
	}
	b.WriteString("Samples of cpu-clock by perf (no PMU is needed), of the load's processes and ksoftirqd; a share is turned into CPU µs by the lane's cost.\n" +
		"Time with interrupts off shows where they come on again. \"bpf:\" is a program of ours, helpers that it calls are functions of the kernel.\n")
	for _, s := range profiledShapes {
		for _, against := range []string{Plain, Routing} {
			for _, own := range []string{SluiceTCX, Sluice} {
				list := r.differences(s, own, against, most)
				if len(list) == 0 {
					continue
				}
				var rows [][]string
				for _, d := range list {
					rows = append(rows, []string{"`" + d.Name + "`", report.Digits(d.Own), report.Digits(d.That), report.Digits(d.Own - d.That)})
				}
				fmt.Fprintf(b, "\n### %s, %s beside %s\n\n%s", s, rival(own).Label, rival(against).Label,
					report.Table([]string{s.unit(), rival(own).Label, rival(against).Label, "more"}, rows))
			}
		}
	}
}
