// Command tunnel measures what tunnels cost: userspace WireGuard on the host, and in a virtual machine kernel WireGuard and
// ESP, beside plain forwarding and one another. It writes a report; run it by `make bench-tunnel`. It is no test: no figure
// fails it, only a lane that does not do what it claims.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
)

func main() { commandLine(&Results{}).Main(30 * time.Minute) }

func commandLine(results *Results) report.Command {
	var only string
	return report.Command{
		Name: "tunnel", Takes: "full (about 14 minutes) or quick (about 6)", Results: results,
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&only, "only", "", "host, ciphers, peers or machine: measure this part anew, and keep the others of tunnel.json. The machine's figures do not depend on how busy the host is")
		},
		Measure: func(ctx context.Context, run report.Run) (bool, error) {
			if only != "" {
				if err := report.Load(run.File, results); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return false, err
				}
			}
			return true, measure(ctx, run, report.Sized(run, Full, Quick), only, results)
		},
	}
}

// measure does everything once, or one part.
func measure(ctx context.Context, run report.Run, o Options, only string, results *Results) (err error) {
	b, err := newBench(ctx, run.Log, o, results)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	known := only == ""
	start := time.Now()
	for _, part := range []struct {
		what string
		of   func(context.Context) error
	}{{"host", b.host}, {"ciphers", b.ciphers}, {"peers", b.peers}, {"machine", b.machine}} {
		if only != "" && only != part.what {
			continue
		}
		known = true
		began := time.Now()
		if err := part.of(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
		run.Log.Info("measured", "part", part.what, "took", time.Since(began).Round(time.Second))
	}
	if !known {
		return fmt.Errorf("only %q: host, ciphers, peers or machine", only)
	}
	results.When, results.Size, results.Revision, results.Took = start.UTC().Truncate(time.Second), o.Name, run.Revision, results.Took+time.Since(start)
	return nil
}

// bench is one run.
type bench struct {
	o       Options
	w       *workshop
	load    *load.Generator
	log     *slog.Logger
	results *Results
}

func newBench(ctx context.Context, log *slog.Logger, o Options, results *Results) (*bench, error) {
	dir, err := os.MkdirTemp("", "tunnel-")
	if err != nil {
		return nil, err
	}
	w, err := newWorkshop(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	generator, err := load.New(ctx)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &bench{o, w, generator, log, results}, nil
}

// Close removes programs and keys.
func (b *bench) Close() error { return errors.Join(b.load.Close(), os.RemoveAll(b.w.dir)) }
