package main

import (
	"fmt"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

func (r *Results) figures() []report.Figure {
	conditions := r.conditions(NodeNetworking)
	var out []report.Figure
	for _, f := range []struct {
		kind       load.Kind
		file, what string
	}{
		{load.RR, "path-rr.svg", "a request and its response"},
		{load.CRR, "path-crr.svg", "a connection with one request and its response"},
		{load.Stream, "path-stream.svg", "a megabyte of a stream"},
	} {
		about := "What " + f.what + " costs, workload to workload"
		out = append(out, report.Figure{File: f.file, About: about, SVG: r.costBars(f.kind, about, conditions).SVG()})
	}
	about := "How long a request takes, workload to workload"
	out = append(out, report.Figure{File: "path-latency.svg", About: about, SVG: r.latencyBars(about, conditions).SVG()})
	for _, f := range []struct {
		s       Shape
		file, y string
		of      func(Measurement) []float64
		title   string
	}{
		{Shapes[0], "path-egress-rr.svg", "CPU microseconds per request", func(m Measurement) []float64 { return m.Micros }, "What a request costs past an egress filter"},
		{Shapes[0], "path-egress-latency.svg", "99th percentile, microseconds", func(m Measurement) []float64 { return m.P99 }, "How long a request takes past an egress filter"},
		{Shapes[2], "path-egress-crr.svg", "CPU microseconds per connection", func(m Measurement) []float64 { return m.Micros }, "What a connection costs past an egress filter"},
		{Shapes[4], "path-egress-stream.svg", "CPU microseconds per MB", func(m Measurement) []float64 { return m.Micros }, "What a megabyte costs past an egress filter"},
		{Shapes[4], "path-egress-throughput.svg", "Mbit/s", func(m Measurement) []float64 { return times(1000, m.Rate) }, "Throughput of one TCP stream past an egress filter"},
	} {
		plot := report.Lines{
			Title: f.title, Subtitle: f.s.String() + " between workloads; the client's gateway denies prefixes of which the flow matches none: who walks a list walks all of it",
			Conditions: r.conditions(EgressFiltering), X: "denied prefixes", Y: f.y, Curves: r.curves(f.s, f.of),
		}
		out = append(out, report.Figure{File: f.file, About: f.title, SVG: plot.SVG()})
	}
	return append(out, r.publishedFigure(r.conditions(EgressFiltering)))
}

func (r *Results) conditions(e Experiment) string {
	return fmt.Sprintf("Medians and 95 %% intervals of %d rounds (streams: %d); %s, kernel %s", r.Rounds, streams(r.Streams, e), r.Machine.CPU, r.Machine.Kernel)
}

func times(factor float64, values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = factor * v
	}
	return out
}

// costBars compares the lanes of the first experiment by a kind of load.
func (r *Results) costBars(kind load.Kind, title, conditions string) report.Bars {
	plot := report.Bars{Title: title, Conditions: conditions,
		Subtitle: "client, gateway, wire, gateway and server on one core, all included; segmentation offload is off in every lane",
	}
	for _, s := range Shapes {
		if s.Kind != kind {
			continue
		}
		plot.X = s.unit() + "; behind each bar the ratio to kernel forwarding"
		group := report.BarGroup{Heading: s.String()}
		plain := r.find(NodeNetworking, s, 0, Plain)
		for _, c := range Networking {
			m := r.find(NodeNetworking, s, 0, c.Key)
			if len(m.Micros) == 0 {
				continue
			}
			bar := report.Bar{Label: c.Label, Colour: c.Colour, Estimate: m.Cost(), Bold: c.Key == Sluice}
			if ratio := report.Ratio(m.Micros, plain.Micros); c.Key != Plain && ratio.Valid() {
				bar.Note = fmt.Sprintf("%.2f ×", ratio.Median)
			}
			group.Bars = append(group.Bars, bar)
		}
		plot.Groups = append(plot.Groups, group)
	}
	return plot
}

// latencyBars are the quantiles of one connection.
func (r *Results) latencyBars(title, conditions string) report.Bars {
	plot := report.Bars{Title: title, Conditions: conditions, X: "microseconds on the clock",
		Subtitle: Shapes[0].String() + ", one connection; both ends and all gateways share one core, so this is time on the CPU and waiting for it"}
	for _, q := range []struct {
		heading string
		of      func(Measurement) []float64
	}{
		{"Median", func(m Measurement) []float64 { return m.P50 }},
		{"99 of 100 are faster", func(m Measurement) []float64 { return m.P99 }},
	} {
		group := report.BarGroup{Heading: q.heading}
		for _, c := range Networking {
			if values := q.of(r.find(NodeNetworking, Shapes[0], 0, c.Key)); len(values) > 0 {
				group.Bars = append(group.Bars, report.Bar{Label: c.Label, Colour: c.Colour, Estimate: report.Of(values), Bold: c.Key == Sluice})
			}
		}
		plot.Groups = append(plot.Groups, group)
	}
	return plot
}

// curves are the filters of the second experiment over the length of the list.
func (r *Results) curves(s Shape, of func(Measurement) []float64) []report.Curve {
	var out []report.Curve
	for _, c := range Filtering {
		curve := report.Curve{Label: c.Label, Colour: c.Colour, Bold: c.Key == SluiceRules, Dashed: c.Key == None}
		for _, size := range r.sizes(EgressFiltering, s) {
			if values := of(r.find(EgressFiltering, s, size, c.Key)); len(values) > 0 {
				curve.Points = append(curve.Points, report.Point{Size: float64(size), Estimate: report.Of(values)})
			}
		}
		if len(curve.Points) > 0 {
			out = append(out, curve)
		}
	}
	return out
}

// draw writes the report and its plots.
func (r *Results) Draw(dir string) error {
	figures := r.figures()
	return report.Write(dir, "path.md", r.Markdown(figures), figures)
}
