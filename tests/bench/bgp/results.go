package main

import (
	"time"

	"sluice/tests/bench/report"
)

// Results are what a run found.
type Results struct {
	When     time.Time
	Size     string
	Revision string
	Took     time.Duration
	Machine  report.Machine
	Routes   int
	Trials   []Trial
}

// Trial is one rival that learned the table of one or more peers. Times are from the first octets of the table.
type Trial struct {
	Rival        string
	Peers, Round int

	RIB  time.Duration // until it counts every path
	FIB  time.Duration // until the probes are in the kernel with every next hop
	Rest time.Duration // until it had nothing left to do
	CPU  time.Duration // of its process until then, the kernel's work for it included

	Resident, Peak int64 // bytes, at the end and at most
}

// cost is a figure of a trial.
type cost struct {
	name, unit string
	of         func(Trial) float64
}

// costs are all, in the order of the report.
var costs = []cost{
	{"into the RIB", "s", func(t Trial) float64 { return t.RIB.Seconds() }},
	{"into the kernel", "s", func(t Trial) float64 { return t.FIB.Seconds() }},
	{"until it rests", "s", func(t Trial) float64 { return t.Rest.Seconds() }},
	{"processor time", "s", func(t Trial) float64 { return t.CPU.Seconds() }},
	{"memory, peak", "MB", func(t Trial) float64 { return float64(t.Peak) / 1e6 }},
	{"memory at the end", "MB", func(t Trial) float64 { return float64(t.Resident) / 1e6 }},
}

// values are those of all rounds, in their order.
func (r *Results) values(rival string, peers int, c cost) (out []float64) {
	for _, t := range r.Trials {
		if t.Rival == rival && t.Peers == peers {
			out = append(out, c.of(t))
		}
	}
	return out
}

// peers are the numbers of them that were measured.
func (r *Results) peers() (out []int) {
	for _, t := range r.Trials {
		if len(out) == 0 || out[len(out)-1] < t.Peers {
			out = append(out, t.Peers)
		}
	}
	return out
}
