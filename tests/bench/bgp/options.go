package main

import "time"

// Options are how much a run does.
type Options struct {
	Name   string
	Routes int
	Peers  []int // each of them announces all routes
	Rounds int
	Rest   time.Duration // without work, and a rival is done
	Limit  time.Duration // of one trial; the run has its own
	Memory int64         // of one rival, in bytes: what takes more ends the run, before it takes the machine
}

// Full and Quick are the sizes of a run.
var (
	Full  = Options{Name: "full", Routes: 1_000_000, Peers: []int{1, 2}, Rounds: 3, Rest: 2 * time.Second, Limit: 15 * time.Minute, Memory: 14 << 30}
	Quick = Options{Name: "quick", Routes: 50_000, Peers: []int{1, 2}, Rounds: 3, Rest: time.Second, Limit: 2 * time.Minute, Memory: 4 << 30}
)

// mostPeers is how many neighbors there are.
func (o Options) mostPeers() (most int) {
	for _, n := range o.Peers {
		most = max(most, n)
	}
	return most
}
