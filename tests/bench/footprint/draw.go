package main

import (
	"fmt"
	"strings"

	"sluice/tests/bench/report"
)

// Colours of what is Sluice's, but not the whole of it.
const (
	daemonColour = "#f0857d"
	banColour    = "#8e1b5c"
)

func (r *Results) figures() []report.Figure {
	machine := r.Machine.CPU + ", kernel " + r.Machine.Kernel
	out := []report.Figure{
		{File: "footprint-change-swap.svg", About: "time until an exchange of the list is seen", SVG: r.changeLines(Swap,
			"How long packets see the old list, when all of it is exchanged", machine).SVG()},
		{File: "footprint-change-add.svg", About: "time until one more prefix is seen", SVG: r.changeLines(Add,
			"How long packets do not see one more prefix", machine).SVG()},
		{File: "footprint-memory-prefixes.svg", About: "memory by prefixes", SVG: r.memoryLines(Prefixes, "a list of IPv4 prefixes", machine).SVG()},
		{File: "footprint-memory-rules.svg", About: "memory by rules", SVG: r.memoryLines(Rules, "5-tuple rules of ClassBench's ACL shape", machine).SVG()},
		{File: "footprint-idle.svg", About: "processor time of the idle daemon", SVG: r.idleBars(machine).SVG()},
		{File: "footprint-boot.svg", About: "from power to filtering", SVG: r.bootBars(machine).SVG()},
	}
	return out
}

func (r *Results) changeLines(what What, title, machine string) report.Lines {
	plot := report.Lines{
		Title: title, X: "prefixes in the list", Y: "milliseconds from the start of the command",
		Subtitle:   "Until the last packet that the old list judged, at " + count(r.Rate) + " frames a second; the new list is on the disk",
		Conditions: "Medians and 95 % intervals over rounds; " + machine,
	}
	at := map[string]int{}
	for _, m := range r.Changes {
		if m.What != what {
			continue
		}
		key := m.Rival + m.Label
		if _, known := at[key]; !known {
			at[key] = len(plot.Curves)
			c := report.Curve{Label: m.Label, Colour: rival(m.Rival).Colour, Bold: m.Rival == Sluice}
			if m.Label == banLabel {
				c.Colour = banColour
			}
			plot.Curves = append(plot.Curves, c)
		}
		if len(m.Rounds) > 0 {
			c := &plot.Curves[at[key]]
			c.Points = append(c.Points, report.Point{Size: float64(m.Size), Estimate: report.Of(m.of(visible))})
		}
	}
	return plot
}

func (r *Results) memoryLines(kind Kind, what, machine string) report.Lines {
	plot := report.Lines{
		Title: "The memory that a filter takes: " + what, X: string(kind), Y: "megabytes",
		Subtitle:   "Sluice's maps with its flow tables and a spare generation; ipset as it tells; others by the growth of the kernel's memory",
		Conditions: machine,
	}
	curve := func(label, colour, key string, bold, dashed bool, bytes func(Memory) int64) {
		c := report.Curve{Label: label, Colour: colour, Bold: bold, Dashed: dashed}
		for _, size := range r.sizes(kind) {
			if n := bytes(r.memory(kind, size, key)); n > 0 {
				c.Points = append(c.Points, report.Point{Size: float64(size), Estimate: report.Of([]float64{float64(n) / 1e6})})
			}
		}
		if len(c.Points) > 0 {
			plot.Curves = append(plot.Curves, c)
		}
	}
	own := rival(Sluice)
	curve("Sluice, all maps", own.Colour, Sluice, true, false, func(m Memory) int64 { return m.Maps.Tables + m.Maps.State })
	curve("Sluice, tables alone", own.Colour, Sluice, false, true, func(m Memory) int64 { return m.Maps.Tables })
	curve("Sluice, daemon's PSS", daemonColour, Sluice, false, false, func(m Memory) int64 { return m.Resident.PSS })
	curve(rival(IPSet).Label, rival(IPSet).Colour, IPSet, false, false, func(m Memory) int64 { return m.Own })
	for _, c := range Rivals[2:] {
		curve(c.Label, c.Colour, c.Key, false, false, func(m Memory) int64 {
			if m.Size < growthFrom {
				return 0
			}
			return m.Growth
		})
	}
	return plot
}

func (r *Results) idleBars(machine string) report.Bars {
	plot := report.Bars{
		Title: "What the idle daemon takes of a processor", Subtitle: "Its process clock over " + r.idleTime().Round(1e9).String(),
		Conditions: machine, X: "thousandths of one processor",
	}
	group := report.BarGroup{Heading: "No packets, no changes"}
	for _, i := range r.Idle {
		group.Bars = append(group.Bars, report.Bar{Label: i.label(), Colour: rival(Sluice).Colour, Estimate: report.Of([]float64{10 * i.Percent()}), Bold: true})
	}
	plot.Groups = append(plot.Groups, group)
	return plot
}

func (r *Results) bootBars(machine string) report.Bars {
	plot := report.Bars{
		Title: "From power to filtering", Subtitle: "A virtual machine whose init starts the daemon; its clock counts instructions, one a nanosecond",
		Conditions: "Without firmware; " + machine, X: "seconds, at one instruction a nanosecond",
	}
	for _, b := range r.Boot {
		group := report.BarGroup{Heading: fmt.Sprintf("%s prefixes: %.1f s", count(b.Prefixes), b.total().Seconds())}
		for _, s := range b.Stages {
			own := strings.HasPrefix(s.What, "sluice")
			bar := report.Bar{Label: s.What, Colour: "#7a7a7a", Estimate: report.Of([]float64{s.Took.Seconds()}), Bold: own,
				Note: fmt.Sprintf("%.0f %%", 100*s.Took.Seconds()/b.total().Seconds())}
			if own {
				bar.Colour = rival(Sluice).Colour
			}
			group.Bars = append(group.Bars, bar)
		}
		plot.Groups = append(plot.Groups, group)
	}
	return plot
}

// draw writes the report and its plots.
func (r *Results) Draw(dir string) error {
	figures := r.figures()
	return report.Write(dir, "footprint.md", r.Markdown(figures), figures)
}
