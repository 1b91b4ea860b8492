package main

import "time"

// Options are how much a run does.
type Options struct {
	Name     string
	Rounds   int
	Aim      time.Duration // of one run of a lane
	Most     int           // packets of one run
	Flows    int           // random flows, a power of two
	Prefixes []int         // sizes of the drop comparison
	Hosts    []int
	Rules    []int
	Forward  int   // rules or prefixes of the forwarding comparison
	TestRun  []int // sizes of BPF_PROG_TEST_RUN: rules up to 100k, and prefixes from 1k
	Shapes   int   // packets a shape
	// Above these a list takes longer to load, or a packet to pass it, than there is time.
	MaxNFT, MaxIPTables int
}

// Full takes about ten minutes, Quick about two.
var (
	Full = Options{
		Name: "full", Rounds: 9, Aim: 250 * time.Millisecond, Most: 1 << 20, Flows: 1 << 20,
		Prefixes: []int{1_000, 10_000, 100_000, 1_000_000}, Hosts: []int{10_000, 1_000_000}, Rules: []int{10, 100, 1_000, 10_000, 100_000},
		Forward: 100_000, TestRun: []int{10, 100, 1_000, 10_000, 100_000, 1_000_000}, Shapes: 1_000_000,
		MaxNFT: 1_000_000, MaxIPTables: 10_000,
	}
	Quick = Options{
		Name: "quick", Rounds: 7, Aim: 80 * time.Millisecond, Most: 1 << 19, Flows: 1 << 18,
		Prefixes: []int{10_000, 1_000_000}, Hosts: []int{10_000}, Rules: []int{100, 1_000, 100_000},
		Forward: 100_000, TestRun: []int{100, 10_000, 100_000, 1_000_000}, Shapes: 100_000,
		MaxNFT: 100_000, MaxIPTables: 1_000,
	}
)
