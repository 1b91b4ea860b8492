package main

import (
	"fmt"
	"slices"

	"sluice/tests/bench/report"
)

const thousand, million = 1_000, 1_000_000

// Targets are those of the project for ingress, in its words.
func (r *Results) Targets() []report.Target {
	var out []report.Target
	kernel := func(c Rival) bool { return c.Kernel }
	for _, keys := range []Keys{RandomHit, FixedHit} {
		best := r.best(Drop, Prefixes, million, keys, kernel)
		out = append(out, r.target(fmt.Sprintf("drop at 1M prefixes, %s, against the best of the kernel's own filters%s", keys, named(best)),
			0.4, 1.0/3, Measurement{Experiment: Drop, Kind: Prefixes, Size: million, Keys: keys, Rival: best}, Floor, Sluice))
	}
	for _, keys := range []Keys{RandomHit, FixedHit} {
		for _, key := range []string{IPTable, IPTableNFT} {
			out = append(out, r.target(fmt.Sprintf("drop at 1M prefixes, %s, against 1k rules of %s", keys, rival(key).Label),
				0.1, 0, Measurement{Experiment: Mixed, Kind: Prefixes, Size: million, Keys: keys, Rival: key}, Floor, Sluice))
		}
	}
	size := r.forwardSize()
	forward := func(what string, limit, stretch float64, keys Keys, key, own string) {
		out = append(out, r.target(what, limit, stretch, Measurement{Experiment: Forward, Kind: Rules, Size: size, Keys: keys, Rival: key}, Nothing, own))
	}
	forward("pass one flow through the rules, against no program at all", 1.10, 0, FixedHit, Nothing, Sluice)
	forward("pass random flows through the rules, against no program at all", 1.5, 1.15, RandomHit, Nothing, Sluice)
	for i := range 2 {
		out[len(out)-1-i].Detail += r.unavoidable(out[len(out)-1-i], size, []Keys{RandomHit, FixedHit}[i])
	}
	for _, of := range [][]string{{"ipset", "ipset-raw"}, {"nft-set", "nft-netdev"}} {
		best := r.best(Forward, Rules, size, RandomHit, func(c Rival) bool { return slices.Contains(of, c.Key) })
		forward("pass random flows through the rules, against a list as long"+named(best), 1, 0, RandomHit, best, Sluice)
		forward("pass random flows past a list, against the same list"+named(best), 1, 0, RandomHit, best, List)
	}
	return out
}

// unavoidable says what a program that only passes costs where t holds Sluice against no program, and what part that is
// of what Sluice adds.
func (r *Results) unavoidable(t report.Target, size int, keys Keys) string {
	side := func(key string) Measurement { return r.find(Forward, Rules, size, keys, key) }
	ratio := report.Ratio(side(Pass).Nanos, side(Nothing).Nanos)
	if !ratio.Valid() || !t.Got.Valid() {
		return ""
	}
	floor, pass, own := side(Nothing).Cost().Median, side(Pass).Cost().Median, side(Sluice).Cost().Median
	detail := fmt.Sprintf(". %s: %s, %s times no program", rival(Pass).Label, report.Digits(pass), ratio)
	if own > floor && pass > floor {
		detail += fmt.Sprintf(", %.0f %% of what Sluice adds", 100*(pass-floor)/(own-floor))
	}
	if ratio.Median > t.Limit {
		detail += ": no program could meet the target here"
	}
	return detail
}

func named(key string) string {
	if key == "" {
		return ""
	}
	return " (" + rival(key).Label + ")"
}

func (r *Results) forwardSize() int {
	if sizes := r.sizes(Forward, Rules); len(sizes) > 0 {
		return sizes[len(sizes)-1]
	}
	return 0
}

// target holds Sluice, or another lane of it, against a rival of the same rounds. The floor is the lane without a filter.
func (r *Results) target(what string, limit, stretch float64, of Measurement, floor, own string) report.Target {
	side := func(key string) Measurement { return r.find(of.Experiment, of.Kind, of.Size, of.Keys, key) }
	us, them := side(own), side(of.Rival)
	t := report.Target{What: what, Limit: limit, Stretch: stretch, Got: report.Ratio(us.Nanos, them.Nanos)}
	if !t.Got.Valid() {
		return t
	}
	base, cost, may := side(floor).Cost().Median, us.Cost().Median, limit*them.Cost().Median
	t.Detail = fmt.Sprintf("%s against %s; %s: %s", report.Digits(cost), report.Digits(them.Cost().Median), rival(floor).Label, report.Digits(base))
	switch {
	case t.Met():
	case may <= base:
		t.Detail += fmt.Sprintf(". The limit is %s, less than that: no program could meet it here", report.Digits(may))
	default:
		t.Detail += fmt.Sprintf(". To meet it, Sluice may add %s, and adds %s", report.Digits(may-base), report.Digits(cost-base))
	}
	return t
}

// Wins are the comparisons that a rival wins beyond the interval, in words.
func (r *Results) Wins() []string {
	var out []string
	for _, m := range r.Measurements {
		own := r.find(m.Experiment, m.Kind, m.Size, m.Keys, Sluice)
		switch m.Rival {
		case Sluice, List, Path, Parse, Floor, Pass, Nothing: // itself, and what filters nothing
			continue
		}
		ratio := report.Ratio(own.Nanos, m.Nanos)
		if !ratio.Valid() || ratio.Low <= 1 {
			continue
		}
		win := fmt.Sprintf("%s wins %s: %s ns, and Sluice %s times that", rival(m.Rival).Label, m, report.Digits(m.Cost().Median), ratio)
		if m.Experiment == Forward { // where the rival has a list, and Sluice rules
			same := r.find(m.Experiment, m.Kind, m.Size, m.Keys, List)
			win += fmt.Sprintf(" by rules, %s by the rival's own list", report.Ratio(same.Nanos, m.Nanos))
		}
		out = append(out, win)
	}
	return out
}
