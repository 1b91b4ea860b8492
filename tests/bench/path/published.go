package main

import (
	"fmt"
	"strings"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

// What others have published, on machines and networks that are not ours: only relations can be compared.

// publishedEgress are Gbit/s of UDP past an egress filter of so many rules; the first is without one.
var publishedEgress = struct {
	sizes []int
	lanes []publishedLane
}{
	[]int{10, 1_000, 100_000, 1_000_000},
	[]publishedLane{
		{"no filter", None, []float64{3.08, 3.07, 3.07, 3.12}},
		{"tc with a hash of eBPF", SluiceRules, []float64{2.97, 2.91, 2.98, 2.96}},
		{"ipset", IPSet, []float64{2.95, 2.92, 2.89, 2.77}},
		{"iptables", Legacy, []float64{2.91, 1.42, 0.005, 0.001}},
	},
}

type publishedLane struct {
	label string
	like  string // the rival of ours that does the same
	gbits []float64
}

// publishedNode is node networking on 100 Gbit/s and kernel 5.10. Values of a range are its middle.
var publishedNode = []struct {
	shape                   Shape
	unit                    string
	node, routing, legacy   float64
	nodeText, ebpf, kernels string
}{
	{Shapes[4], "Gbit/s", 41.6, 42.2, 35.4, "41.6", "42.2", "35.1-35.7"},
	{Shapes[0], "k/s", 47.8, 45.2, 35, "47.8", "45.2", "34-36"},
	{Shape{load.CRR, 16}, "k/s, × 32", 127, 199, 150, "127 (228 without conntrack)", "199", "136-164"},
}

// publishedFigure sets our curves beside theirs: throughput as a part of that without a filter.
func (r *Results) publishedFigure(conditions string) report.Figure {
	about := "Throughput past an egress filter, ours beside the published curves"
	plot := report.Lines{Title: about, Conditions: conditions, X: "denied prefixes, or rules", Y: "percent of the throughput without a filter",
		Subtitle: "solid: one TCP stream here, ratio of each round; dashed: published, UDP between two hosts"}
	s := Shapes[4]
	for _, c := range Filtering {
		curve := report.Curve{Label: c.Label, Colour: c.Colour, Bold: c.Key == SluiceRules}
		for _, size := range r.sizes(EgressFiltering, s) {
			m := r.find(EgressFiltering, s, size, c.Key)
			if ratio := report.Ratio(times(100, m.Rate), r.find(EgressFiltering, s, size, None).Rate); ratio.Valid() && c.Key != None {
				curve.Points = append(curve.Points, report.Point{Size: float64(size), Estimate: ratio})
			}
		}
		if len(curve.Points) > 0 {
			plot.Curves = append(plot.Curves, curve)
		}
	}
	for _, l := range publishedEgress.lanes[1:] {
		curve := report.Curve{Label: l.label + ", published", Colour: rival(l.like).Colour, Dashed: true}
		for i, size := range publishedEgress.sizes {
			v := 100 * l.gbits[i] / publishedEgress.lanes[0].gbits[i]
			curve.Points = append(curve.Points, report.Point{Size: float64(size), Estimate: report.Estimate{Median: v, Low: v, High: v}})
		}
		plot.Curves = append(plot.Curves, curve)
	}
	return report.Figure{File: "path-egress-published.svg", About: about, SVG: plot.SVG()}
}

// publishedTable quotes node networking, and what it is of node to node there and here.
func (r *Results) publishedTable() string {
	var rows [][]string
	for _, p := range publishedNode {
		node := r.find(NodeNetworking, p.shape, 0, Node).Rate
		ours := func(key string) string {
			return report.Ratio(r.find(NodeNetworking, p.shape, 0, key).Rate, node).String()
		}
		rows = append(rows, []string{p.shape.String() + ", " + p.unit, p.nodeText,
			fmt.Sprintf("%s · %.2f", p.ebpf, p.routing/p.node), fmt.Sprintf("%s · %.2f", p.kernels, p.legacy/p.node),
			ours(Routing), ours(SluiceTCX), ours(Sluice), ours(NFT)})
	}
	var b strings.Builder
	b.WriteString(report.Table([]string{"rate; · and columns of ours: part of node to node", "node to node, published", "eBPF host routing, published", "legacy, published",
		rival(Routing).Label, rival(SluiceTCX).Label, rival(Sluice).Label, rival(NFT).Label}, rows))
	return b.String()
}
