package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/tests/bench/report"
)

// Results are everything that a run found out: enough to draw its report again.
type Results struct {
	When         time.Time
	Size         string // full or quick
	Revision     string // of the source
	Took         time.Duration
	Machine      report.Machine
	Rounds       int
	Measurements []Measurement
	Shapes       []ShapeResult
	Gateways     []GatewayCost
}

// Experiment is what packets were sent through.
type Experiment string

// The experiments. Drop and Forward: live frames on veth. Mixed: a drop in which iptables holds a thousand rules and Sluice
// a million prefixes. TestRun: BPF_PROG_TEST_RUN of the program alone.
const (
	Drop    Experiment = "drop"
	Mixed   Experiment = "drop, iptables with 1k rules"
	Forward Experiment = "forward"
	TestRun Experiment = "test run"
)

// Measurement is one rival in one comparison. Values are by round, and those of one index belong together within a
// comparison.
type Measurement struct {
	Experiment Experiment
	Kind       Kind
	Size       int
	Keys       Keys
	Rival      string
	Nanos      []float64 // of CPU time per packet
	Mpps       []float64 // on the clock
}

// String names the comparison.
func (m Measurement) String() string {
	return fmt.Sprintf("%s, %s %s, %s", m.Experiment, report.Thousands(fmt.Sprint(m.Size)), m.Kind, m.Keys)
}

// Cost is CPU nanoseconds per packet.
func (m Measurement) Cost() report.Estimate { return report.Of(m.Nanos) }

// GatewayCost is what the tables of a content are.
type GatewayCost struct {
	Kind        Kind
	Size        int
	Bytes       int64
	WorstProbes int
}

// ShapeResult is the outcome of one shape of rules against the reference model.
type ShapeResult struct {
	Shape          string
	Rules, Packets int
	Dropped        int
	Disagreements  int    // of Eval or XDP with the model
	First          string // the first one
}

// find returns the measurement of one rival; its Nanos are empty where there is none.
func (r *Results) find(e Experiment, kind Kind, size int, keys Keys, key string) Measurement {
	i := slices.IndexFunc(r.Measurements, func(m Measurement) bool {
		return m.Experiment == e && m.Kind == kind && m.Size == size && m.Keys == keys && m.Rival == key
	})
	if i < 0 {
		return Measurement{Experiment: e, Kind: kind, Size: size, Keys: keys, Rival: key}
	}
	return r.Measurements[i]
}

// sizes are those that an experiment has of a kind.
func (r *Results) sizes(e Experiment, kind Kind) []int {
	var out []int
	for _, m := range r.Measurements {
		if m.Experiment == e && m.Kind == kind && !slices.Contains(out, m.Size) {
			out = append(out, m.Size)
		}
	}
	slices.Sort(out)
	return out
}

// best is the rival of least cost among those that of allows; "" where there is none.
func (r *Results) best(e Experiment, kind Kind, size int, keys Keys, of func(Rival) bool) string {
	key, cost := "", 0.0
	for _, candidate := range Rivals {
		m := r.find(e, kind, size, keys, candidate.Key)
		if c := m.Cost().Median; of(candidate) && len(m.Nanos) > 0 && (key == "" || c < cost) {
			key, cost = candidate.Key, c
		}
	}
	return key
}

// round keeps three digits after the point, which is more than the clock knows, so that the file stays small.
func (r *Results) round() {
	for _, m := range r.Measurements {
		for _, values := range [][]float64{m.Nanos, m.Mpps} {
			for i := range values {
				values[i] = math.Round(values[i]*1000) / 1000
			}
		}
	}
}
