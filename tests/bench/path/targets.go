package main

import (
	"fmt"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

// Targets are those of the project for the path, in its words.
func (r *Results) Targets() []report.Target {
	var out []report.Target
	for _, own := range []string{Sluice, SluiceTCX} {
		for _, t := range []struct {
			kind           load.Kind
			rival          string
			limit, stretch float64
		}{
			{load.RR, Plain, 0.92, 0.85}, {load.RR, NFT, 0.70, 0},
			{load.CRR, Plain, 1.00, 0.88}, {load.CRR, NFT, 0.75, 0},
			{load.Stream, Plain, 0.80, 0.78},
		} {
			for _, s := range Shapes {
				if s.Kind == t.kind {
					out = append(out, r.target(s, own, t.rival, t.limit, t.stretch))
				}
			}
		}
	}
	for _, own := range []string{SluiceRules, SluiceSet} {
		for _, s := range Shapes {
			if s.Connections == 1 {
				out = append(out, r.flat(s, own, 1.10))
			}
		}
	}
	return out
}

// target holds a lane of Sluice against another of the same rounds. What the method takes without any policy or state,
// and what a veth takes for running XDP, say what can be had.
func (r *Results) target(s Shape, own, than string, limit, stretch float64) report.Target {
	side := func(key string) Measurement { return r.find(NodeNetworking, s, 0, key) }
	us, them, floor := side(own), side(than), side(Routing)
	t := report.Target{What: fmt.Sprintf("%s, %s against %s", s, rival(own).Label, rival(than).Label), Limit: limit, Stretch: stretch,
		Got: report.Ratio(us.Micros, them.Micros)}
	if !t.Got.Valid() {
		return t
	}
	t.Detail = fmt.Sprintf("%s against %s", report.Digits(us.Cost().Median), report.Digits(them.Cost().Median))
	if !floor.Cost().Valid() {
		return t
	}
	base, cost, may := floor.Cost().Median, us.Cost().Median, limit*them.Cost().Median
	t.Detail += fmt.Sprintf("; %s: %s", rival(Routing).Label, report.Digits(base))
	pass, plain := side(XDPPass).Cost(), side(Plain).Cost()
	if own == Sluice && pass.Valid() && plain.Valid() {
		t.Detail += fmt.Sprintf("; XDP_PASS alone adds %s to kernel forwarding", report.Digits(max(0, pass.Median-plain.Median)))
	}
	switch {
	case t.Met():
	case may <= base:
		t.Detail += fmt.Sprintf(". The limit is %s, less than host routing alone takes", report.Digits(may))
	default:
		t.Detail += fmt.Sprintf(". To meet it, Sluice may add %s to host routing, and adds %s", report.Digits(may-base), report.Digits(cost-base))
	}
	return t
}

// flat holds the longest list against the shortest.
func (r *Results) flat(s Shape, own string, limit float64) report.Target {
	t := report.Target{What: fmt.Sprintf("%s past an egress filter, %s", s, rival(own).Label), Limit: limit}
	sizes := r.sizes(EgressFiltering, s)
	if len(sizes) < 2 {
		t.Got = report.Of(nil)
		return t
	}
	first, last := sizes[0], sizes[len(sizes)-1]
	few, many := r.find(EgressFiltering, s, first, own), r.find(EgressFiltering, s, last, own)
	t.What += fmt.Sprintf(": %s denied against %s", report.Thousands(fmt.Sprint(last)), report.Thousands(fmt.Sprint(first)))
	if t.Got = report.Ratio(many.Micros, few.Micros); t.Got.Valid() {
		t.Detail = fmt.Sprintf("%s against %s", report.Digits(many.Cost().Median), report.Digits(few.Cost().Median))
	}
	return t
}

// Wins are the comparisons that a rival wins beyond the interval, in words. What has no policy
// is not a rival, but for kernel forwarding, which targets name.
func (r *Results) Wins() []string {
	var out []string
	for _, m := range r.Measurements {
		var own []string
		switch {
		case m.Experiment == NodeNetworking && (m.Rival == Conntrack || m.Rival == NFT || m.Rival == Plain):
			own = []string{Sluice, SluiceTCX}
		case m.Experiment == EgressFiltering && rival(m.Rival).Denies && m.Rival != SluiceRules && m.Rival != SluiceSet:
			own = []string{SluiceRules, SluiceSet}
		}
		for _, key := range own {
			ratio := report.Ratio(r.find(m.Experiment, m.Shape, m.Size, key).Micros, m.Micros)
			if !ratio.Valid() || ratio.Low <= 1 {
				continue
			}
			out = append(out, fmt.Sprintf("%s wins %s, %s, %s denied: %s %s, and %s %s times that", rival(m.Rival).Label, m.Experiment, m.Shape,
				report.Thousands(fmt.Sprint(m.Size)), report.Digits(m.Cost().Median), m.Shape.unit(), rival(key).Label, ratio))
		}
	}
	return out
}
