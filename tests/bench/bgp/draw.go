package main

import (
	"fmt"
	"strings"

	"sluice/tests/bench/report"
)

func (r *Results) figures() []report.Figure {
	return []report.Figure{
		{File: "bgp-time.svg", About: "time until a full table is learned", SVG: r.bars("How long a full table takes", "seconds", costs[:3]).SVG()},
		{File: "bgp-cost.svg", About: "processor time of a full table", SVG: r.bars("What a full table takes of processors", "seconds of one processor", costs[3:4]).SVG()},
		{File: "bgp-memory.svg", About: "memory of a full table", SVG: r.bars("What a full table takes of memory", "MB", costs[4:]).SVG()},
	}
}

func (r *Results) bars(title, axis string, of []cost) report.Bars {
	plot := report.Bars{
		Title: title, Subtitle: report.Thousands(fmt.Sprint(r.Routes)) + " routes, each from one neighbor or from two; the daemon as it is released",
		Conditions: "Medians and 95 % intervals over rounds; " + r.Machine.CPU + ", kernel " + r.Machine.Kernel, X: axis,
	}
	for _, peers := range r.peers() {
		for _, c := range of {
			group := report.BarGroup{Heading: strings.ToUpper(c.name[:1]) + c.name[1:] + ", from " + neighbors(peers)}
			for _, rival := range Rivals {
				bar := report.Bar{Label: rival.Label, Colour: rival.Colour, Estimate: report.Of(r.values(rival.Key, peers, c)), Bold: rival.Key == Sluice}
				if rival.Key != BIRD {
					bar.Note = report.Digits(report.Ratio(r.values(rival.Key, peers, c), r.values(BIRD, peers, c)).Median) + " x"
				}
				group.Bars = append(group.Bars, bar)
			}
			plot.Groups = append(plot.Groups, group)
		}
	}
	return plot
}

// Draw writes the report and its plots.
func (r *Results) Draw(dir string) error {
	figures := r.figures()
	return report.Write(dir, "bgp.md", r.Markdown(figures), figures)
}
