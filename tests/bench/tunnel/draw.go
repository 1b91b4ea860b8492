package main

import (
	"fmt"

	"sluice/tests/bench/report"
	"sluice/tests/bench/tunnel/trial"
)

// Units of costs, by where they were measured.
const hostUnit, machineUnit = "CPU µs", "thousand instructions"

func per(k trial.Kind) string {
	if k == trial.Stream {
		return " per MB"
	}
	return " per request"
}

func (r *Results) figures() []report.Figure {
	host := fmt.Sprintf("Medians and 95 %% intervals of %d rounds; %s, kernel %s", r.Rounds, r.Machine.CPU, r.Machine.Kernel)
	inside := fmt.Sprintf("Medians and 95 %% intervals of %d rounds; one emulated CPU, kernel %s", r.Guest.Rounds, r.GuestKernel)
	const sameCore = "client, gateway, wire, gateway and server on one core, tunnels included"
	var out []report.Figure
	for _, f := range []struct {
		kind               trial.Kind
		file, about        string
		list               []trial.Measurement
		lanes              []Rival
		unit, note, within string
	}{
		{trial.Stream, "tunnel-stream.svg", "What a megabyte of a stream costs through userspace WireGuard", r.Host, Host, hostUnit, sameCore, host},
		{trial.RR, "tunnel-rr.svg", "What a request and its response cost through userspace WireGuard", r.Host, Host, hostUnit, sameCore, host},
		{trial.Stream, "tunnel-machine-stream.svg", "Instructions of a megabyte of a stream through the kernel's tunnels", r.Inside, Machine, machineUnit, sameCore, inside},
		{trial.RR, "tunnel-machine-rr.svg", "Instructions of a request and its response through the kernel's tunnels", r.Inside, Machine, machineUnit, sameCore, inside},
	} {
		plot := report.Bars{Title: f.about, Subtitle: f.note, Conditions: f.within, X: f.unit + per(f.kind) + "; behind each bar the ratio to plain forwarding"}
		plot.Groups = costGroups(f.list, f.lanes, f.kind)
		out = append(out, report.Figure{File: f.file, About: f.about, SVG: plot.SVG()})
	}
	return append(out, r.spreadFigure(), r.publishedFigure(inside))
}

func costGroups(list []trial.Measurement, lanes []Rival, k trial.Kind) (out []report.BarGroup) {
	for _, s := range shapes(list) {
		if s.Kind != k {
			continue
		}
		group := report.BarGroup{Heading: s.Wire.String()}
		for _, l := range lanes {
			bar := report.Bar{Label: l.Label, Colour: l.Colour, Estimate: report.Of(find(list, s, l.Key).Cost), Bold: l.Key == Embedded || l.Key == WireGuard || l.Key == ESPGCM}
			if !bar.Valid() {
				continue
			}
			if l.Key != Plain {
				bar.Note = fmt.Sprintf("%.2f ×", ratio(list, s, l.Key, Plain).Median)
			}
			group.Bars = append(group.Bars, bar)
		}
		out = append(out, group)
	}
	return out
}

// spreadFigure shows what flows cost on several CPUs.
func (r *Results) spreadFigure() report.Figure {
	about := "Instructions of a megabyte of streams on four CPUs"
	plot := report.Bars{Title: about, X: machineUnit + " per MB, of all CPUs; behind each bar, how many of them have something to do at once",
		Subtitle:   "each flow's ends are on a CPU of its own, and each wire is received on the next",
		Conditions: fmt.Sprintf("Medians and 95 %% intervals of %d rounds; MTU 1500, four emulated CPUs, kernel %s", r.Guest.SpreadRounds, r.GuestKernel)}
	for _, l := range r.Guest.Layouts {
		group := report.BarGroup{Heading: l.String()}
		for _, lane := range Machine {
			s := r.spread(l, lane.Key)
			if bar := (report.Bar{Label: lane.Label, Colour: lane.Colour, Estimate: report.Of(total(s)), Bold: lane.Key != Plain}); bar.Valid() {
				bar.Note = fmt.Sprintf("%.1f CPUs", report.Of(atOnce(s)).Median)
				group.Bars = append(group.Bars, bar)
			}
		}
		plot.Groups = append(plot.Groups, group)
	}
	return report.Figure{File: "tunnel-spread.svg", About: about, SVG: plot.SVG()}
}

// draw writes the report and its plots.
func (r *Results) Draw(dir string) error {
	figures := r.figures()
	return report.Write(dir, "tunnel.md", r.Markdown(figures), figures)
}
