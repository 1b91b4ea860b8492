package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

// Results are everything that a run found out: enough to draw its report again.
type Results struct {
	When         time.Time
	Size         string // full or quick
	Revision     string // of the source
	Took         time.Duration
	Machine      report.Machine
	Rounds       int // of requests
	Streams      int // rounds of streams
	Policy       int // length of the list in the first experiment
	Measurements []Measurement
	Profiles     []Profile
}

// Experiment is where a load was sent through.
type Experiment string

// The experiments.
const (
	NodeNetworking  Experiment = "node networking"
	EgressFiltering Experiment = "egress filtering"
)

// Shape is a load.
type Shape struct {
	Kind        load.Kind
	Connections int
}

// Ports of servers, which policies accept.
const requestPort, streamPort = 5001, 5201

func (s Shape) port() uint16 {
	if s.Kind == load.Stream {
		return streamPort
	}
	return requestPort
}

// String is what netperf would call it.
func (s Shape) String() string {
	switch {
	case s.Kind == load.Stream:
		return "TCP_STREAM"
	case s.Connections == 1:
		return "TCP_" + string(s.Kind)
	}
	return fmt.Sprintf("TCP_%s × %d", s.Kind, s.Connections)
}

// unit is that of costs, rateUnit that of rates.
func (s Shape) unit() string {
	if s.Kind == load.Stream {
		return "CPU µs per MB"
	}
	return "CPU µs per operation"
}

func (s Shape) rateUnit() string {
	if s.Kind == load.Stream {
		return "Gbit/s"
	}
	return "k/s"
}

// Shapes are all loads, in the order of the report.
var Shapes = []Shape{{load.RR, 1}, {load.RR, 16}, {load.CRR, 1}, {load.CRR, 16}, {load.Stream, 1}}

// Measurement is one lane under one load. Values are by round, and those of one index belong together within an experiment
// and a shape.
type Measurement struct {
	Experiment    Experiment
	Shape         Shape
	Size          int // of the list
	Rival         string
	Micros        []float64 // of CPU time per operation, or per MB
	Rate          []float64 // thousands of operations per second, or Gbit/s, on the clock
	P50           []float64 // µs on the clock; none of streams
	P99, P999     []float64 // likewise, one value of all rounds together
	Softirq       []float64 // part of Micros in ksoftirqd
	Retransmitted uint64
}

func (m *Measurement) add(r load.Result) {
	per := float64(r.Operations)
	m.Retransmitted += r.Retransmitted
	if m.Shape.Kind == load.Stream {
		per = float64(r.Bytes) / 1e6
		m.Rate = append(m.Rate, digits(8*float64(r.Bytes)/1e9/r.Wall.Seconds()))
	} else {
		m.Rate = append(m.Rate, digits(per/1e3/r.Wall.Seconds()))
		m.P50 = append(m.P50, micros(r.Latency.P50))
	}
	m.Micros, m.Softirq = append(m.Micros, digits(float64(r.CPU)/1e3/per)), append(m.Softirq, digits(float64(r.Softirq)/1e3/per))
}

// setTail sets what a single round has too few operations for.
func (m *Measurement) setTail(q load.Quantiles) {
	m.P99, m.P999 = []float64{micros(q.P99)}, []float64{micros(q.P999)}
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// digits leaves those that a clock knows.
func digits(v float64) float64 { return math.Round(v*1e6) / 1e6 }

// Cost is CPU microseconds per operation or MB.
func (m Measurement) Cost() report.Estimate { return report.Of(m.Micros) }

func (m Measurement) rate() report.Estimate { return report.Of(m.Rate) }

// find returns the measurement of one rival; its values are empty where there is none. Any size is right where size is 0,
// and of the lane without a filter, which has no list.
func (r *Results) find(e Experiment, s Shape, size int, key string) Measurement {
	if key == None {
		size = 0
	}
	i := slices.IndexFunc(r.Measurements, func(m Measurement) bool {
		return m.Experiment == e && m.Shape == s && (size == 0 || m.Size == size) && m.Rival == key
	})
	if i < 0 {
		return Measurement{Experiment: e, Shape: s, Size: size, Rival: key}
	}
	return r.Measurements[i]
}

// sizes are the lists of an experiment's shape.
func (r *Results) sizes(e Experiment, s Shape) []int {
	var out []int
	for _, m := range r.Measurements {
		if m.Experiment == e && m.Shape == s && !slices.Contains(out, m.Size) {
			out = append(out, m.Size)
		}
	}
	slices.Sort(out)
	return out
}
