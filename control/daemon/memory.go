package daemon

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// What the process takes of the machine's memory. Between changes it holds the configuration and what the next
// compilation can use of the last; a change needs as much again for a moment, and reading a large file more than that.
const (
	// memoryGoal is a soft limit of the Go runtime's memory: near it the collector works harder instead of taking more. A
	// configuration that needs more gets it, or the collector would never rest.
	memoryGoal = 448 << 20
	// quiet is how long nothing is compiled before what was needed for it is given back.
	quiet = time.Second
)

// memory keeps it so. Who set GOMEMLIMIT knows better.
func (d *Daemon) memory(ctx context.Context) error {
	_, set := os.LookupEnv("GOMEMLIMIT")
	if !set {
		debug.SetMemoryLimit(memoryGoal)
	}
	rest := time.NewTimer(quiet)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.grew:
			rest.Reset(quiet)
			continue
		case <-rest.C:
		}
		debug.FreeOSMemory()
		if !set {
			debug.SetMemoryLimit(max(memoryGoal, liveHeap()*2))
		}
	}
}

// liveHeap is what the last collection found in use, in bytes.
func liveHeap() int64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// grows says that a configuration is being compiled.
func (d *Daemon) grows() {
	select {
	case d.grew <- struct{}{}:
	default:
	}
}
