package main

import (
	"fmt"

	"sluice/tests/bench/report"
)

func (r *Results) figures() []report.Figure {
	conditions := "Medians and 95 % intervals of " + fmt.Sprint(r.Rounds) + " rounds; " + r.Machine.CPU + ", kernel " + r.Machine.Kernel
	var out []report.Figure
	for _, f := range []struct {
		keys       Keys
		file, what string
	}{
		{RandomHit, "ingress-drop-random.svg", "random flows that the list or the rules drop"},
		{FixedHit, "ingress-drop-fixed.svg", "one flow, which the last prefix or rule that it can be drops"},
	} {
		plot := report.Lines{
			Title:    "What it costs to drop a packet, by the size of the filter",
			Subtitle: "64-byte frames on veth, generator included; " + f.what, Conditions: conditions,
			X: "prefixes in the list, or rules", Y: "CPU nanoseconds per packet", Curves: r.dropCurves(f.keys),
		}
		out = append(out, report.Figure{File: f.file, About: "drop, " + f.what, SVG: plot.SVG()})
	}
	out = append(out, report.Figure{File: "ingress-forward.svg", About: "forward", SVG: r.forwardBars(conditions).SVG()})
	for _, f := range []struct {
		kind             Kind
		file, what, axis string
	}{
		{Prefixes, "ingress-program-prefixes.svg", "a list of IPv4 prefixes", "prefixes"},
		{Rules, "ingress-program-rules.svg", "5-tuple rules of ClassBench's ACL shape", "rules"},
	} {
		plot := report.Lines{
			Title:    "The XDP program alone: " + f.what,
			Subtitle: "BPF_PROG_TEST_RUN; writing the frame and a tail call are included", Conditions: conditions,
			X: f.axis, Y: "CPU nanoseconds per packet", Curves: r.programCurves(f.kind),
		}
		out = append(out, report.Figure{File: f.file, About: "program alone, " + f.what, SVG: plot.SVG()})
	}
	return out
}

// curve is a rival's cost over the sizes; its name may say more than the rival's.
func (r *Results) curve(e Experiment, kind Kind, keys Keys, c Rival, suffix string) report.Curve {
	out := report.Curve{Label: c.Label + suffix, Colour: c.Colour, Bold: c.Key == Sluice, Dashed: c.Key == Floor || c.Key == Parse}
	for _, size := range r.sizes(e, kind) {
		if m := r.find(e, kind, size, keys, c.Key); len(m.Nanos) > 0 {
			out.Points = append(out.Points, report.Point{Size: float64(size), Estimate: m.Cost()})
		}
	}
	return out
}

// dropCurves are lists of prefixes, and lists of rules where a rival has those only; Sluice has both.
func (r *Results) dropCurves(keys Keys) []report.Curve {
	var out []report.Curve
	add := func(c report.Curve) {
		if len(c.Points) > 0 {
			out = append(out, c)
		}
	}
	for _, c := range Rivals {
		onPrefixes := r.curve(Drop, Prefixes, keys, c, "")
		switch {
		case c.Key == Sluice:
			rules := r.curve(Drop, Rules, keys, c, ", rules")
			rules.Dashed = true
			onPrefixes.Label += ", prefixes"
			add(onPrefixes)
			add(rules)
		case len(onPrefixes.Points) > 0:
			add(onPrefixes)
		case c.Key == "xdp-filter":
			add(r.curve(Drop, Hosts, keys, c, ", hosts"))
		default:
			add(r.curve(Drop, Rules, keys, c, ""))
		}
	}
	return out
}

func (r *Results) programCurves(kind Kind) []report.Curve {
	var out []report.Curve
	for _, c := range Rivals {
		for _, k := range []struct {
			keys   Keys
			suffix string
		}{{RandomHit, ", random hit"}, {RandomMiss, ", random miss"}, {FixedHit, ", fixed hit"}} {
			floor := c.Key == Floor || c.Key == Parse
			if floor && k.keys != RandomHit {
				continue
			}
			if floor {
				k.suffix = ""
			}
			curve := r.curve(TestRun, kind, k.keys, c, k.suffix)
			curve.Dashed = curve.Dashed || k.keys == RandomMiss
			curve.Bold = curve.Bold && k.keys == RandomHit
			if len(curve.Points) > 0 {
				out = append(out, curve)
			}
		}
	}
	return out
}

func (r *Results) forwardBars(conditions string) report.Bars {
	size := r.forwardSize()
	plot := report.Bars{
		Title:      fmt.Sprintf("What it costs to forward a packet past a filter of %s rules or prefixes", report.Thousands(fmt.Sprint(size))),
		Subtitle:   "64-byte frames on veth, generator and sink included; Sluice judges by 5-tuple rules, the others by a list that misses",
		Conditions: conditions,
		X:          "CPU nanoseconds per packet; behind each bar the ratio to no program at all",
	}
	for _, g := range []struct {
		keys    Keys
		heading string
	}{{FixedHit, "One flow"}, {RandomHit, "Random flows"}} {
		group := report.BarGroup{Heading: g.heading}
		plain := r.find(Forward, Rules, size, g.keys, Nothing)
		for _, c := range Rivals {
			m := r.find(Forward, Rules, size, g.keys, c.Key)
			if len(m.Nanos) == 0 {
				continue
			}
			bar := report.Bar{Label: c.Label, Colour: c.Colour, Estimate: m.Cost(), Bold: c.Key == Sluice}
			if c.Key != Nothing {
				bar.Note = fmt.Sprintf("%.2f ×", report.Ratio(m.Nanos, plain.Nanos).Median)
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
	return report.Write(dir, "ingress.md", r.Markdown(figures), figures)
}
