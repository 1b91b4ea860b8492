package main

import (
	"fmt"

	"sluice/tests/bench/report"
	"sluice/tests/bench/tunnel/trial"
)

// Others have published how IPsec and WireGuard between two hosts compare, one stream on a fast network, with segmentation
// offload: Gbit/s at two MTUs, and the CPU time of 10 Gbit/s.
var published = []struct {
	mtu                  int
	ipsec                float64
	wireguardLow, wgHigh float64
}{{1500, 3.4, 4.2, 4.7}, {9000, 10.4, 16, 17.6}}

// publishedCPU is by how much IPsec's CPU time is lower.
var publishedCPU = report.Estimate{Median: 1 / 1.8, Low: 1 / 2.0, High: 1 / 1.6}

// faster is WireGuard's throughput in terms of IPsec's, as published.
func faster(i int) report.Estimate {
	p := published[i]
	return report.Estimate{Median: (p.wireguardLow + p.wgHigh) / 2 / p.ipsec, Low: p.wireguardLow / p.ipsec, High: p.wgHigh / p.ipsec}
}

// comparison is a ratio of ours or theirs.
type comparison struct {
	what, colour string
	report.Estimate
	ours bool
}

const oursColour, theirsColour = "#d1342f", "#9aa4b0"

// cpuComparisons are the CPU time of IPsec in terms of WireGuard's.
func (r *Results) cpuComparisons() []comparison {
	out := []comparison{{"published, CPU of 10 Gbit/s", theirsColour, publishedCPU, false}}
	for _, w := range wires {
		s := trial.Shape{Kind: trial.Stream, Wire: w}
		out = append(out, comparison{"instructions, " + w.String(), oursColour, ratio(r.Inside, s, ESPGCM, WireGuard), true})
	}
	for _, size := range []int{1440, 8940} {
		out = append(out, comparison{fmt.Sprintf("ciphers alone here, %d bytes", size), "#e8954f", report.Ratio(r.cipher(aesGCM, size).Micros, r.cipher(chaCha, size).Micros), true})
	}
	for _, w := range wires {
		if c, ok := r.compose(w); ok && !w.Offload {
			v := c.ESP() / c.WireGuard()
			out = append(out, comparison{"composed, " + w.String(), "#f0b9a0", report.Estimate{Median: v, Low: v, High: v}, true})
		}
	}
	return valid(out)
}

// rateComparisons are the throughput of one stream by WireGuard in terms of IPsec's: as published, and what one CPU gives that
// executes as many instructions of either.
func (r *Results) rateComparisons() (out []comparison) {
	for i, p := range published {
		out = append(out, comparison{fmt.Sprintf("published, MTU %d", p.mtu), theirsColour, faster(i), false})
	}
	for _, w := range wires {
		out = append(out, comparison{"one CPU, " + w.String(), oursColour, ratio(r.Inside, trial.Shape{Kind: trial.Stream, Wire: w}, ESPGCM, WireGuard), true})
	}
	return valid(out)
}

func valid(list []comparison) (out []comparison) {
	for _, c := range list {
		if c.Valid() {
			out = append(out, c)
		}
	}
	return out
}

func (r *Results) publishedFigure(conditions string) report.Figure {
	about := "IPsec beside WireGuard, ours beside what was published"
	plot := report.Bars{Title: about, Conditions: conditions, X: "ratio",
		Subtitle: "grey: published, two hosts on a fast network. Ours: instructions of an emulated machine, and ciphers on one real core"}
	for _, g := range []struct {
		heading string
		list    []comparison
	}{
		{"CPU time of IPsec / WireGuard: below 1 IPsec is cheaper", r.cpuComparisons()},
		{"One stream's throughput, WireGuard / IPsec: above 1 WireGuard is faster", r.rateComparisons()},
	} {
		group := report.BarGroup{Heading: g.heading}
		for _, c := range g.list {
			group.Bars = append(group.Bars, report.Bar{Label: c.what, Colour: c.colour, Estimate: c.Estimate, Bold: c.ours})
		}
		plot.Groups = append(plot.Groups, group)
	}
	return report.Figure{File: "tunnel-published.svg", About: about, SVG: plot.SVG()}
}

func (r *Results) publishedTable() string {
	var rows [][]string
	for i, p := range published {
		rows = append(rows, []string{fmt.Sprintf("one stream, MTU %d, Gbit/s", p.mtu), report.Digits(p.ipsec),
			fmt.Sprintf("%s to %s", report.Digits(p.wireguardLow), report.Digits(p.wgHigh)), faster(i).String()})
	}
	rows = append(rows, []string{"CPU time of 10 Gbit/s", "1.6 to 2 times less", "1", report.Estimate{Median: 1.8, Low: 1.6, High: 2}.String()})
	return report.Table([]string{"published", "IPsec", "WireGuard", "WireGuard / IPsec"}, rows)
}

func (r *Results) comparisonTable() string {
	var rows [][]string
	for _, g := range []struct {
		what string
		list []comparison
	}{{"CPU time, IPsec / WireGuard", r.cpuComparisons()}, {"throughput of streams, WireGuard / IPsec", r.rateComparisons()}} {
		for _, c := range g.list {
			text := c.String()
			if c.Low == c.High { // an estimate, or one round
				text = report.Digits(c.Median)
			}
			rows = append(rows, []string{g.what + ": " + c.what, text})
		}
	}
	return report.Table([]string{"comparison", "ratio"}, rows)
}
