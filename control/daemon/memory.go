package daemon

import (
	"context"
	"runtime/debug"
	"time"
)

// quiet is how long nothing is compiled or applied before the memory that it took is given back.
const quiet = time.Second

// memory gives back to the machine what a change needed for a moment: to read and compile a large file takes several times
// what is kept of it, and the Go runtime would hold on to it for minutes. There is no limit on the runtime's memory: with one
// near what a change needs, the collector ran without a pause and reading took twice as long.
func (d *Daemon) memory(ctx context.Context) error {
	rest := time.NewTimer(quiet)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.busy:
			rest.Reset(quiet)
		case <-rest.C:
			debug.FreeOSMemory()
		}
	}
}

// works says that a configuration is being compiled, or was applied.
func (d *Daemon) works() {
	select {
	case d.busy <- struct{}{}:
	default:
	}
}
