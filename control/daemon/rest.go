package daemon

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	// quiet is how long nothing is compiled or applied before what can wait is done.
	quiet = time.Second
	// quieter is the same for spare generations: they take seconds of CPU, for which a start has other use (BGP, tunnels), and
	// the first change after it alone is faster for them.
	quieter = 10 * time.Second

	// Above largeHeap bytes that live on, garbage may grow to tightGC percent of them rather than to as much again: each
	// change of a large configuration leaves some 100 MB, and a row of them never is quiet. Below it the runtime's own
	// measure stays, and with it the time that a first large configuration takes to read.
	largeHeap = 200 << 20
	tightGC   = 40
	usualGC   = 100
)

// rest does what can wait for the end of changes.
//
// It gives back to the machine the memory that they needed for a moment: to read and compile a large file takes several times
// what is kept of it, and the Go runtime would hold on to it for minutes. There is no limit on the runtime's memory: with one
// near what a change needs, the collector ran without a pause and reading took twice as long.
//
// A table of routes that arrives is no change: what it leaves behind lives on, and a tight measure would have all of it looked at again and again.
//
// And it has spare generations made, but not while a revision waits to be confirmed: they would take the place of the one that
// it goes back to.
func (d *Daemon) rest(ctx context.Context) error {
	memory, spares, percent := time.NewTimer(quiet), time.NewTimer(quieter), garbage()
	defer memory.Stop()
	defer spares.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.busy:
			memory.Reset(quiet)
			spares.Reset(quieter)
		case <-d.arriving:
			memory.Reset(quiet)
			spares.Reset(quieter)
			percent(usualGC)
			continue
		case <-memory.C:
			if d.engine.Busy() { // a load may take longer than quiet
				memory.Reset(quiet)
				continue
			}
			debug.FreeOSMemory()
		case <-spares.C:
			if d.engine.Busy() {
				spares.Reset(quieter)
				continue
			}
			if d.engine.Pending() == nil {
				d.tc.WantSpare()
				d.xdp.WantSpare()
			}
		}
		percent(gcPercent(liveHeap()))
	}
}

// garbage returns a function that sets how much garbage may gather.
func garbage() func(percent int) {
	if os.Getenv("GOGC") != "" { // who sets it knows better
		return func(int) {}
	}
	now := usualGC
	return func(percent int) {
		if percent != now { // to set it stops the world
			debug.SetGCPercent(percent)
			now = percent
		}
	}
}

// gcPercent is how much garbage may gather beside a live heap of so many bytes.
func gcPercent(live uint64) int {
	if live > largeHeap {
		return tightGC
	}
	return usualGC
}

// liveHeap are the bytes that the last collection found in use.
func liveHeap() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(sample)
	if sample[0].Value.Kind() != runtimemetrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// arrives says that routes are learned by the thousand.
func (d *Daemon) arrives() {
	select {
	case d.arriving <- struct{}{}:
	default:
	}
}

// works says that a configuration is compiled, was applied, or is confirmed.
func (d *Daemon) works() {
	select {
	case d.busy <- struct{}{}:
	default:
	}
}
