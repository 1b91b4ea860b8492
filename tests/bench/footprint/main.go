// Command footprint measures what it takes to have Sluice: memory, the idle daemon's processor time, how long a change of
// a list takes to be seen by every packet and what is lost meanwhile, and the way from power to filtering. Rivals do the
// same in the same run. Run it by `make bench-footprint`. It is no test: no figure fails it, only a lane that does not do
// what it claims.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/report"
)

func main() { commandLine(&Results{}).Main(40 * time.Minute) }

func commandLine(results *Results) report.Command {
	return report.Command{
		Name: "footprint", Takes: "full (about 8 minutes) or quick (about 2)", Results: results,
		Measure: func(ctx context.Context, run report.Run) (bool, error) {
			return true, measure(ctx, run, report.Sized(run, Full, Quick), results)
		},
	}
}

// measure does everything once.
func measure(ctx context.Context, run report.Run, o Options, results *Results) (err error) {
	start := time.Now()
	*results = Results{When: start.UTC().Truncate(time.Second), Size: o.Name, Revision: run.Revision, Machine: report.Describe(), Rate: o.Rate}
	if err := gateway.Sweep(); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	dir, err := os.MkdirTemp("", "footprint-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := newWorkshop(ctx, dir)
	if err != nil {
		return err
	}
	defer w.Close()
	b := &bench{o: o, w: w, log: run.Log, results: results}
	if err := b.sizes(ctx); err != nil {
		return err
	}
	if err := b.idle(ctx); err != nil {
		return err
	}
	if err := b.boot(ctx); err != nil {
		return err
	}
	results.Took = time.Since(start)
	return nil
}

// changes are those that are made at a size.
func (o Options) changes(size int) Changes {
	if i := slices.IndexFunc(o.Change, func(c Changes) bool { return c.Size == size }); i >= 0 {
		return o.Change[i]
	}
	return Changes{}
}
