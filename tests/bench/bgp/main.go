// Command bgp measures what a full table costs: from the first octet of it until it is in the RIB and in the kernel, processor time and
// memory, beside BIRD 2 doing the same in the same run. It writes a report; run it by `make bench-bgp`. It is no test: no figure fails
// it, only a rival that does not hold what it was sent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/node"
	"sluice/tests/bench/report"
)

func main() { commandLine(&Results{}).Main(90 * time.Minute) }

func commandLine(results *Results) report.Command {
	routes := 0
	return report.Command{
		Name: "bgp", Takes: "full, a million routes (at most 90 minutes), or quick, 50,000 (took 2 min 23 s)", Results: results,
		Flags: func(flags *flag.FlagSet) {
			flags.IntVar(&routes, "routes", 0, "measure with so many, once: nothing is written")
		},
		Measure: func(ctx context.Context, run report.Run) (bool, error) {
			o := report.Sized(run, Full, Quick)
			if routes > 0 {
				o.Routes, o.Rounds = routes, 1
			}
			return routes == 0, measure(ctx, run, o, results)
		},
	}
}

// measure does everything once.
func measure(ctx context.Context, run report.Run, o Options, results *Results) (err error) {
	start := time.Now()
	*results = Results{When: start.UTC().Truncate(time.Second), Size: o.Name, Revision: run.Revision, Machine: report.Describe(), Routes: o.Routes}
	if err := gateway.Sweep(); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	dir, err := os.MkdirTemp("", "bgp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := node.Build(ctx, dir)
	if err != nil {
		return err
	}
	b := &bench{o: o, dir: dir, binary: binary, table: newTable(o.Routes), log: run.Log, results: results}
	defer func() { err = errors.Join(err, b.endSources()) }()
	if err := b.startSources(ctx); err != nil {
		return err
	}
	run.Log.Info("the neighbors hold the table", "routes", o.Routes, "took", time.Since(start).Round(time.Second))
	for round := range o.Rounds {
		for _, peers := range o.Peers {
			if err := b.round(ctx, round, peers); err != nil {
				return err
			}
		}
	}
	results.Took = time.Since(start)
	return nil
}

// bench is one run.
type bench struct {
	o       Options
	dir     string
	binary  string // of sluice
	table   table
	sources []*source
	log     *slog.Logger
	results *Results
}

// round has every rival learn the table, one after the other; who begins changes.
func (b *bench) round(ctx context.Context, round, peers int) error {
	for i := range Rivals {
		rival := Rivals[(i+round)%len(Rivals)]
		t, err := b.trial(ctx, rival, peers)
		if err != nil {
			return fmt.Errorf("%s with %d peers: %w", rival.Label, peers, err)
		}
		t.Round = round
		b.results.Trials = append(b.results.Trials, t)
		b.log.Info("measured", "rival", rival.Label, "peers", peers, "round", round, "rib", t.RIB, "fib", t.FIB, "rest", t.Rest, "cpu", t.CPU, "peak_mb", t.Peak>>20)
	}
	return nil
}
