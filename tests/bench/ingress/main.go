// Command ingress measures what Sluice's ingress policy costs a packet, beside the kernel's own filters and other XDP
// programs, and writes a report. Run it by `make bench`. It is no test: no figure fails it, only a lane that does not do
// what it claims.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/tests/bench/report"
	"sluice/xdp/classify/classifytest"
)

// errDisagree says that a fast path and the model differ.
var errDisagree = errors.New("the classifier disagrees with the reference model: see the report")

func main() {
	// A hung tool or kernel call must not leave a machine busy for ever.
	const longest = 40 * time.Minute
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ingress", flag.ContinueOnError)
	size := flags.String("size", "full", "full (about 10 minutes) or quick (about 2)")
	out := flags.String("out", "tests/bench/results", "folder of the report")
	revision := flags.String("revision", "unknown", "of the source, for the report")
	redraw := flags.Bool("redraw", false, "only draw the report of ingress.json again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file := filepath.Join(*out, "ingress.json")
	if *redraw {
		results, err := load(file)
		if err != nil {
			return err
		}
		return results.draw(*out)
	}
	o, known := map[string]Options{Full.Name: Full, Quick.Name: Quick}[*size]
	if !known {
		return fmt.Errorf("size %q: full or quick", *size)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	results, err := measure(ctx, log, o, *revision)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if err := errors.Join(results.save(file), results.draw(*out)); err != nil {
		return err
	}
	for _, t := range results.Targets() {
		fmt.Printf("%s: %s, %s\n", t.What, t.Got, t.Verdict())
	}
	fmt.Printf("took %s; the report is %s\n", results.Took.Round(time.Second), filepath.Join(*out, "ingress.md"))
	for _, s := range results.Shapes {
		if s.Disagreements > 0 {
			return errDisagree
		}
	}
	return nil
}

// measure does everything once.
func measure(ctx context.Context, log *slog.Logger, o Options, revision string) (*Results, error) {
	start := time.Now()
	results := &Results{When: start.UTC().Truncate(time.Second), Size: o.Name, Revision: revision, Machine: report.Describe(), Rounds: o.Rounds}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove the pins of an earlier run: %w", err)
	}
	w, err := newWorkshop(ctx)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	b := &bench{o: o, w: w, log: log, contents: map[string]*Content{}, results: results}
	for _, s := range []struct {
		kind  Kind
		sizes []int
	}{{Rules, o.Rules}, {Prefixes, o.Prefixes}, {Hosts, o.Hosts}} {
		for _, size := range s.sizes {
			if err := b.drop(ctx, s.kind, size); err != nil {
				return nil, fmt.Errorf("drop by %d %s: %w", size, s.kind, err)
			}
		}
	}
	if err := b.mixed(ctx); err != nil {
		return nil, fmt.Errorf("a million prefixes beside a thousand rules: %w", err)
	}
	if err := b.forward(ctx); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	for kind, sizes := range map[Kind][]int{Rules: o.TestRules, Prefixes: o.TestPrefixes} {
		for _, size := range sizes {
			if err := b.testRun(ctx, kind, size); err != nil {
				return nil, err
			}
		}
	}
	if err := b.shapes(ctx); err != nil {
		return nil, err
	}
	results.Took = time.Since(start)
	return results, nil
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
