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
	Forward  int // rules or prefixes of the forwarding comparison
	Shapes   int // packets a shape

	TestRules, TestPrefixes []int // sizes for BPF_PROG_TEST_RUN
	TestAim                 time.Duration
	// Above these a list takes longer to load, or a packet to pass it, than there is time.
	MaxNFT, MaxIPTables int
}

// Full takes about ten minutes, Quick about two.
var (
	Full = Options{
		Name: "full", Rounds: 7, Aim: 200 * time.Millisecond, Most: 1 << 20, Flows: 1 << 20,
		Prefixes: []int{1_000, 10_000, 100_000, 1_000_000}, Hosts: []int{10_000, 1_000_000}, Rules: []int{10, 100, 1_000, 10_000, 100_000},
		Forward: 100_000, TestRules: []int{10, 100, 1_000, 10_000, 100_000}, TestPrefixes: []int{1_000, 10_000, 100_000, 1_000_000},
		TestAim: 100 * time.Millisecond, Shapes: 1_000_000, MaxNFT: 1_000_000, MaxIPTables: 10_000,
	}
	Quick = Options{
		Name: "quick", Rounds: 7, Aim: 50 * time.Millisecond, Most: 1 << 20, Flows: 1 << 18,
		Prefixes: []int{10_000, 1_000_000}, Hosts: []int{10_000}, Rules: []int{100, 1_000, 100_000},
		Forward: 100_000, TestRules: []int{100, 100_000}, TestPrefixes: []int{10_000, 1_000_000},
		TestAim: 50 * time.Millisecond, Shapes: 50_000, MaxNFT: 100_000, MaxIPTables: 1_000,
	}
)
