package main

import "time"

// Options are how much a run does.
type Options struct {
	Name    string
	Rounds  int           // of requests
	Streams int           // rounds of streams, whose tool knows whole seconds alone; past filters a third of them
	Each    time.Duration // of one run of a lane that is measured
	Policy  int           // length of the list in the first experiment
	Lists   []int         // those of the second
	Some    []int         // of these, those that CRR and streams are measured with
	Profile time.Duration // of one lane; 0: none
}

// Full takes about fourteen minutes, Quick about four.
var (
	Full = Options{
		Name: "full", Rounds: 81, Streams: 21, Each: 20 * time.Millisecond, Policy: 10_000,
		Lists: []int{10, 100, 1_000, 10_000, 100_000}, Some: []int{10, 100, 1_000, 10_000, 100_000}, Profile: 2 * time.Second,
	}
	Quick = Options{
		Name: "quick", Rounds: 31, Streams: 6, Each: 20 * time.Millisecond, Policy: 10_000,
		Lists: []int{10, 1_000, 100_000}, Some: []int{10, 100_000}, Profile: time.Second,
	}
)
