// Command ingress measures what Sluice's ingress policy costs a packet, beside the kernel's own filters and other XDP
// programs, and writes a report. Run it by `make bench`. It is no test: no figure fails it, only a lane that does not do
// what it claims.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/tests/bench/gateway"
	"sluice/tests/bench/report"
	"sluice/xdp/classify/classifytest"
)

// errDisagree says that a fast path and the model differ.
var errDisagree = errors.New("the classifier disagrees with the reference model: see the report")

func main() { commandLine(&Results{}).Main(40 * time.Minute) }

func commandLine(results *Results) report.Command {
	return report.Command{
		Name: "ingress", Takes: "full (about 10 minutes) or quick (about 2)", Results: results,
		Measure: func(ctx context.Context, run report.Run) (bool, error) {
			return true, measure(ctx, run, report.Sized(run, Full, Quick), results)
		},
		Done: func() error {
			for _, t := range results.Targets() {
				fmt.Printf("%s: %s, %s\n", t.What, t.Got, t.Verdict())
			}
			if slices.ContainsFunc(results.Shapes, func(s ShapeResult) bool { return s.Disagreements > 0 }) {
				return errDisagree
			}
			return nil
		},
	}
}

// measure does everything once.
func measure(ctx context.Context, run report.Run, o Options, results *Results) error {
	start := time.Now()
	*results = Results{When: start.UTC().Truncate(time.Second), Size: o.Name, Revision: run.Revision, Machine: report.Describe(), Rounds: o.Rounds}
	if err := gateway.Sweep(); err != nil {
		return fmt.Errorf("remove the pins of an earlier run: %w", err)
	}
	w, err := newWorkshop(ctx)
	if err != nil {
		return err
	}
	defer w.Close()
	b := &bench{o: o, w: w, log: run.Log, contents: map[string]*Content{}, results: results}
	for _, s := range []struct {
		kind  Kind
		sizes []int
	}{{Rules, o.Rules}, {Prefixes, o.Prefixes}, {Hosts, o.Hosts}} {
		for _, size := range s.sizes {
			if err := b.drop(ctx, s.kind, size); err != nil {
				return fmt.Errorf("drop by %d %s: %w", size, s.kind, err)
			}
		}
	}
	if err := b.mixed(ctx); err != nil {
		return fmt.Errorf("a million prefixes beside a thousand rules: %w", err)
	}
	if err := b.forward(ctx); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	for kind, sizes := range map[Kind][]int{Rules: o.TestRules, Prefixes: o.TestPrefixes} {
		for _, size := range sizes {
			if err := b.testRun(ctx, kind, size); err != nil {
				return err
			}
		}
	}
	if err := b.shapes(ctx); err != nil {
		return err
	}
	results.Took = time.Since(start)
	results.round()
	return nil
}

// shapes holds all shapes against the model, two at a time: nothing is timed here.
func (b *bench) shapes(ctx context.Context) error {
	b.results.Shapes = make([]ShapeResult, len(classifytest.Shapes))
	judging, ctx := errgroup.WithContext(ctx)
	judging.SetLimit(2)
	for i, of := range classifytest.Shapes {
		judging.Go(func() (err error) {
			start := time.Now()
			b.results.Shapes[i], err = b.shape(ctx, of, b.o.Shapes)
			b.log.Info("judged", "shape", of, "packets", b.results.Shapes[i].Packets,
				"disagreements", b.results.Shapes[i].Disagreements, "took", time.Since(start).Round(time.Second))
			return err
		})
	}
	return judging.Wait()
}
