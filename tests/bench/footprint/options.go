package main

import "time"

// Options are how much a run does.
type Options struct {
	Name     string
	Prefixes []int // sizes whose memory is looked at
	Rules    []int
	MaxNFT   int // above it a set of nftables takes too long to load

	Change []Changes
	Rate   int // frames a second while lists change

	Unrest time.Duration // before the idle daemon is looked at
	Idle   time.Duration
	Flows  int // of the idle daemon that has some

	Boot []int // prefixes of the box that boots
}

// Changes are rounds of exchanges at a size; those of nftables are fewer, for they are slow.
type Changes struct{ Size, Rounds, RoundsNFT int }

const thousand, million = 1_000, 1_000_000

// unrest is how long a daemon does what can wait for the end of changes: it makes spare generations 10 s after the last.
const unrest = 15 * time.Second

// Full takes about eight minutes, Quick about two.
var (
	Full = Options{
		Name: "full", Prefixes: []int{10, thousand, 100 * thousand, million}, Rules: []int{10, thousand, 100 * thousand}, MaxNFT: million,
		Change: []Changes{{thousand, 7, 7}, {100 * thousand, 5, 3}, {million, 3, 1}}, Rate: 20_000,
		Unrest: unrest, Idle: time.Minute, Flows: 100 * thousand, Boot: []int{10, 100 * thousand},
	}
	Quick = Options{
		Name: "quick", Prefixes: []int{thousand, 100 * thousand}, Rules: []int{10, 10 * thousand}, MaxNFT: 100 * thousand,
		Change: []Changes{{thousand, 3, 3}, {100 * thousand, 3, 1}}, Rate: 20_000,
		Unrest: unrest, Idle: 20 * time.Second, Flows: 100 * thousand, Boot: []int{10},
	}
)
