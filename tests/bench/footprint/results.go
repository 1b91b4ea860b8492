package main

import (
	"slices"
	"time"

	"sluice/tests/bench/report"
)

// Results are everything that a run found out: enough to draw its report again.
type Results struct {
	When     time.Time
	Size     string // full or quick
	Revision string // of the source
	Took     time.Duration
	Machine  report.Machine
	Rate     int // frames a second while lists changed

	Memory  []Memory
	Changes []Measurement
	Idle    []Idle
	Boot    []Boot
}

// Memory is what a rival takes to hold a content. Bytes.
type Memory struct {
	Kind   Kind
	Size   int
	Rival  string
	Growth int64         // of the kernel's memory, the whole machine's
	Own    int64         // what the rival's own tools tell; 0: nothing
	Load   time.Duration // until it was there

	// Of Sluice alone.
	Maps     Maps
	Resident Resident
}

// Measurement is one way to change a list, by rounds.
type Measurement struct {
	What   What
	Size   int
	Rival  string
	Label  string // of the command
	Rounds []Change
	Phases map[string]time.Duration // of Sluice's last round, as its log tells them
}

// Idle is a daemon to which nothing happens.
type Idle struct {
	Prefixes, Flows int
	Wall, CPU       time.Duration
	Wakeups         float64 // a second: voluntary context switches of all its threads
	Resident        Resident
}

// Percent is the share of one processor.
func (i Idle) Percent() float64 { return 100 * i.CPU.Seconds() / i.Wall.Seconds() }

// Boot is a machine's way from power to filtering. Times of Stages follow each other.
type Boot struct {
	Prefixes int
	Kernel   string
	Stages   []Stage
	Phases   map[string]time.Duration // of the first apply, as the daemon's log tells them
}

// Stage is a part of the way.
type Stage struct {
	What string
	Took time.Duration
}

// memory returns what a rival takes; its Size is 0 where that was not measured.
func (r *Results) memory(kind Kind, size int, key string) Memory {
	i := slices.IndexFunc(r.Memory, func(m Memory) bool { return m.Kind == kind && m.Size == size && m.Rival == key })
	if i < 0 {
		return Memory{}
	}
	return r.Memory[i]
}

// sizes are those that a kind was measured at.
func (r *Results) sizes(kind Kind) (out []int) {
	for _, m := range r.Memory {
		if m.Kind == kind && !slices.Contains(out, m.Size) {
			out = append(out, m.Size)
		}
	}
	slices.Sort(out)
	return out
}

// of returns a value of each round.
func (m Measurement) of(value func(*Change) float64) []float64 {
	var out []float64
	for i := range m.Rounds {
		out = append(out, value(&m.Rounds[i]))
	}
	return out
}

// sum adds a count of all rounds up.
func (m Measurement) sum(count func(*Change) int) (n int) {
	for i := range m.Rounds {
		n += count(&m.Rounds[i])
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
