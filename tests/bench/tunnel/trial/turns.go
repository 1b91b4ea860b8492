package trial

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"sluice/tests/bench/load"
)

// port is the first that servers listen on.
const port = 5001

// Kind is what workloads do.
type Kind string

// RR is a byte and a byte back, over and over. Stream is a long message and a byte back: a stream that can be measured in
// turns of milliseconds.
const (
	RR     Kind = "RR"
	Stream Kind = "STREAM"
)

// Shape is a load on a kind of wire.
type Shape struct {
	Kind Kind
	Wire Wire
}

// String is what netperf would call it, and the wire.
func (s Shape) String() string { return fmt.Sprintf("TCP_%s, %s", s.Kind, s.Wire) }

// Measurement is one lane under one load. Values are by round, and those of one index belong together within a shape.
type Measurement struct {
	Lane          string
	Shape         Shape
	Cost          []float64 // per operation of RR, per MB (10^6 bytes) of Stream: CPU µs, or thousands of instructions in the machine
	Rate          []float64 // thousands of operations per second, or Gbit/s, on the clock
	P50           []float64 // µs on the clock; of RR
	P99           []float64 // likewise, one value of all rounds together
	Retransmitted uint64
}

// Lane is one rival on a site of its own.
type Lane struct {
	Key     string
	Site    *Site
	Carries int   // IP protocol on the wire
	Message int   // of Stream, bytes
	Beside  []int // processes that are part of the cost
}

// Turns is how lanes are measured: each once a round, in an order of its own each round, so that what slows the machine
// for a while meets all of them.
type Turns struct {
	Rounds int
	Each   time.Duration // of a turn
	CPU    int           // that all of it runs on
	// Cost is what counts of a result.
	Cost func(load.Result) time.Duration
}

// Measure runs a load through all lanes.
func (t Turns) Measure(ctx context.Context, g *load.Generator, lanes []*Lane, s Shape) (_ []Measurement, err error) {
	sessions, out := make([]*load.Session, len(lanes)), make([]Measurement, len(lanes))
	defer func() {
		for _, session := range sessions {
			if session != nil {
				err = errors.Join(err, session.Close())
			}
		}
	}()
	for i, l := range lanes {
		if sessions[i], err = l.open(ctx, g, s.Kind, 0, 0, t.CPU); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s, l.Key, err)
		}
		out[i] = Measurement{Lane: l.Key, Shape: s}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for range t.Rounds {
		for _, i := range rng.Perm(len(lanes)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			r, err := turn(sessions[i], t.Each)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", s, lanes[i].Key, err)
			}
			out[i].add(r, t.Cost(r))
		}
	}
	for i, session := range sessions {
		if s.Kind == RR {
			out[i].P99 = []float64{micros(session.Latency().P99)}
		}
	}
	return out, nil
}

// turn is one, and a longer one where not one operation came to its end in it.
func turn(s *load.Session, d time.Duration) (r load.Result, err error) {
	const longest = 6 // 64 times the first
	for tries := 0; ; tries++ {
		r, err = s.Run(d << tries)
		if !errors.Is(err, load.ErrNothing) || tries == longest {
			return r, err
		}
	}
}

// open starts a load on a path; flows of one path have ports of their own.
func (l *Lane) open(ctx context.Context, g *load.Generator, k Kind, path, flow, cpu int) (*load.Session, error) {
	spec := load.Spec{Kind: load.RR, Server: netip.AddrPortFrom(l.Site.B.Inner(path), uint16(port+flow)), CPU: cpu, Beside: l.Beside}
	if k == Stream {
		spec.Request = l.Message
	}
	return g.Open(ctx, l.Site.A.Workload, l.Site.B.Workload, spec)
}

func (m *Measurement) add(r load.Result, cost time.Duration) {
	m.Retransmitted += r.Retransmitted
	per := float64(r.Operations)
	if m.Shape.Kind == Stream {
		per = float64(r.Bytes) / 1e6
		m.Rate = append(m.Rate, digits(8*float64(r.Bytes)/1e9/r.Wall.Seconds()))
	} else {
		m.Rate = append(m.Rate, digits(per/1e3/r.Wall.Seconds()))
		m.P50 = append(m.P50, micros(r.Latency.P50))
	}
	m.Cost = append(m.Cost, digits(float64(cost)/1e3/per))
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// digits leaves those that a clock knows.
func digits(v float64) float64 { return math.Round(v*1e6) / 1e6 }
