// Command path measures what it costs to get TCP through two gateways, workload to workload, and past an egress filter:
// Sluice beside the kernel's own ways. It writes a report; run it by `make bench-path`. It is no test: no figure fails it,
// only a lane that does not do what it claims.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

func main() { commandLine(&Results{}).Main(40 * time.Minute) }

func commandLine(results *Results) report.Command {
	var pick choice
	return report.Command{
		Name: "path", Takes: "full (about 14 minutes) or quick (about 4)", Results: results,
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&pick.experiment, "only", "", "node or egress: this experiment alone. With any choice no report is written")
			flags.StringVar(&pick.lanes, "lanes", "", "these lanes alone, separated by commas: plain,sluice")
			flags.StringVar(&pick.loads, "loads", "", "these loads alone: RR,CRR,STREAM")
		},
		Measure: func(ctx context.Context, run report.Run) (bool, error) {
			if !slices.Contains([]string{"", "node", "egress"}, pick.experiment) {
				return false, fmt.Errorf("only %q: node or egress", pick.experiment)
			}
			if err := measure(ctx, run, report.Sized(run, Full, Quick), pick, results); err != nil {
				return false, err
			}
			results.tell(pick)
			return pick == choice{}, nil
		},
	}
}

// tell prints what was found to who waits for it: the targets, and for a part of a run its profiles, which no report keeps.
func (r *Results) tell(pick choice) {
	for _, t := range r.Targets() {
		if t.Got.Valid() {
			fmt.Printf("%s: %s, %s\n", t.What, t.Got, t.Verdict())
		}
	}
	if pick != (choice{}) {
		var b strings.Builder
		r.profileTables(&b)
		fmt.Println(b.String())
	}
}

// choice is a part of a run, for who changes one thing and looks at it. What is empty chooses all.
type choice struct{ experiment, lanes, loads string }

func chosen(list, key string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), key)
}

// measure does everything once, or a part of it.
func measure(ctx context.Context, run report.Run, o Options, pick choice, results *Results) error {
	start := time.Now()
	*results = Results{When: start.UTC().Truncate(time.Second), Size: o.Name, Revision: run.Revision, Machine: report.Describe(), Rounds: o.Rounds, Streams: o.Streams, Policy: o.Policy}
	if err := gateway.Sweep(); err != nil {
		return fmt.Errorf("remove the pins of an earlier run: %w", err)
	}
	w, err := newWorkshop(ctx)
	if err != nil {
		return err
	}
	generator, err := load.New(ctx)
	if err != nil {
		return err
	}
	defer generator.Close()
	b := &bench{o, w, generator, run.Log, results, pick}
	if chosen(pick.experiment, "node") {
		if err := b.networking(ctx); err != nil {
			return fmt.Errorf("node networking: %w", err)
		}
	}
	if chosen(pick.experiment, "egress") {
		if err := b.filtering(ctx); err != nil {
			return fmt.Errorf("egress filtering: %w", err)
		}
	}
	results.Took = time.Since(start)
	return nil
}

// bench is one run.
type bench struct {
	o       Options
	w       *workshop
	load    *load.Generator
	log     *slog.Logger
	results *Results
	pick    choice
}

// networking measures all loads from workload to workload.
func (b *bench) networking(ctx context.Context) error {
	list := deniedPrefixes(b.o.Policy)
	var lanes []*pathLane
	for _, r := range Networking {
		lanes = append(lanes, &pathLane{Rival: r, list: list})
	}
	return b.experiment(ctx, NodeNetworking, lanes, func(s Shape) []int { return []int{b.o.Policy} })
}

// filtering measures lists of all sizes in the client's gateway, all up at once: so a list's cost has its ratio to that
// of another size as well.
func (b *bench) filtering(ctx context.Context) error {
	var lanes []*pathLane
	for i, n := range b.o.Lists {
		list := deniedPrefixes(n)
		for _, r := range Filtering {
			if r.Key != None || i == 0 { // without a filter there is no list to have a length
				lanes = append(lanes, &pathLane{Rival: r, list: list})
			}
		}
	}
	return b.experiment(ctx, EgressFiltering, lanes, func(s Shape) []int {
		switch {
		case s.Connections > 1:
			return nil
		case s.Kind == load.RR:
			return b.o.Lists
		}
		return b.o.Some
	})
}

// experiment holds lanes to what they claim, and then measures those whose list has a size of the shape's.
func (b *bench) experiment(ctx context.Context, e Experiment, lanes []*pathLane, sizes func(Shape) []int) (err error) {
	lanes = slices.DeleteFunc(lanes, func(l *pathLane) bool { return !chosen(b.pick.lanes, l.Key) })
	g, err := newGroup(ctx, b.w, b.log, b.load, lanes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if err := g.check(ctx); err != nil {
		return err
	}
	var measured []Shape
	for _, s := range Shapes {
		var some []*pathLane
		for _, l := range lanes {
			if slices.Contains(sizes(s), len(l.list)) && chosen(b.pick.loads, string(s.Kind)) {
				some = append(some, l)
			}
		}
		if len(some) == 0 {
			continue
		}
		got, err := g.measure(ctx, b.o, e, s, some)
		if err != nil {
			return err
		}
		b.results.Measurements, measured = append(b.results.Measurements, got...), append(measured, s)
	}
	if e == NodeNetworking && b.o.Profile > 0 {
		b.results.Profiles, err = g.profiles(ctx, b.o, measured)
	}
	return err
}
