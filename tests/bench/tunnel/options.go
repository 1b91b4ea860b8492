package main

import (
	"time"

	"sluice/tests/bench/tunnel/trial"
)

// Options are how much a run does.
type Options struct {
	Name       string
	Rounds     int
	RR, Stream time.Duration // of a turn on the host
	Wires      []trial.Wire
	Ciphers    Ciphers
	Machine    trial.Options
	Peers      Peers
	Count      bool // the machine's clock counts instructions: without, it is quick, and its figures are of no use
}

// Ciphers are rounds of a second for each cipher and size.
type Ciphers struct {
	Rounds int
	Sizes  []int // bytes
}

var wires = []trial.Wire{{MTU: 1500}, {MTU: 9000}, {MTU: 1500, Offload: true}}

// message is that of streams, on the host as well.
const message = 1 << 20

// Full takes about fourteen minutes, Quick about six.
var (
	Full = Options{
		Name: "full", Rounds: 81, RR: 20 * time.Millisecond, Stream: 40 * time.Millisecond, Wires: wires,
		Ciphers: Ciphers{5, []int{64, 1440, 8940}},
		Machine: trial.Options{
			Rounds: 5, RR: 5 * time.Millisecond, Stream: 20 * time.Millisecond, Message: message, Wires: wires,
			CPUs: 4, SpreadRounds: 3, Spread: 200 * time.Millisecond, Layouts: []trial.Layout{{Tunnels: 1, Flows: 1}, {Tunnels: 1, Flows: 4}, {Tunnels: 4, Flows: 4}},
		},
		Peers: Peers{Sizes: []Size{{1, 10}, {1, 100}, {1, 1000}, {100, 10}}, Rounds: 3, Changes: 5, Rest: 12 * time.Second, Ways: ways, Idle: 20 * time.Second}, Count: true,
	}
	Quick = Options{
		Name: "quick", Rounds: 21, RR: 20 * time.Millisecond, Stream: 40 * time.Millisecond, Wires: wires,
		Ciphers: Ciphers{1, []int{1440, 8940}},
		Machine: trial.Options{
			Rounds: 3, RR: 5 * time.Millisecond, Stream: 20 * time.Millisecond, Message: message, Wires: wires,
			CPUs: 4, SpreadRounds: 2, Spread: 150 * time.Millisecond, Layouts: []trial.Layout{{Tunnels: 1, Flows: 1}, {Tunnels: 4, Flows: 4}},
		},
		Peers: Peers{Sizes: []Size{{1, 1000}}, Rounds: 2, Changes: 3, Rest: 12 * time.Second, Ways: ways, Idle: 15 * time.Second}, Count: true,
	}
)
