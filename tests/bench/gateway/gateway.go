// Package gateway runs Sluice in a namespace of a benchmark as a box runs it: the file parsed and compiled, and what
// comes of that applied by the subsystems that the daemon uses. Nothing here is made for the benchmark.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/tc"
	"sluice/tests/bench/lane"
	"sluice/xdp"
	"sluice/xdp/pin"
)

// Gateway is Sluice in a namespace.
type Gateway struct {
	box    *lane.Namespace
	dir    string // of pins
	host   *host.Host
	tc     *tc.Subsystem
	xdp    *xdp.Subsystem
	digest string // of the XDP generation
	closer []func() error
}

// State is what a gateway shall hold. A part that is nil is left as it is.
type State struct {
	Host *host.State
	TC   *tc.State
	XDP  *xdp.State
}

// Whole is all that the way of a packet meets.
func Whole(d *compile.Desired) State { return State{&d.Host, &d.TC, &d.XDP} }

const (
	bpffs  = "/sys/fs/bpf"
	prefix = "sluice-lane-" // then the process that made it
)

// Sweep removes the pins and files of runs that were killed; everything else of theirs went with them.
func Sweep() error {
	pins, err := filepath.Glob(filepath.Join(bpffs, prefix+"*"))
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range append(pins, files...) {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// Desire is the way of a configuration from its bytes to what the subsystems should hold on a box with these facts.
// Files that it names are read by readFile, which may be nil where it names none.
func Desire(file []byte, readFile func(string) ([]byte, error), facts host.Facts) (*compile.Desired, error) {
	cfg, err := config.Parse(config.Source{Name: "bench.yaml", Bytes: file, ReadFile: readFile})
	if err != nil {
		return nil, fmt.Errorf("parse the configuration: %.2000w", err)
	}
	return compile.Compile(cfg, compile.Runtime{}, compile.Facts{Host: facts})
}

// Open makes one that holds nothing yet.
func Open(box *lane.Namespace) (*Gateway, error) {
	g := &Gateway{box: box}
	own := fmt.Sprintf("%s%d-", prefix, os.Getpid())
	parent, err := os.MkdirTemp(bpffs, own)
	if err != nil {
		return nil, fmt.Errorf("this needs root and a bpffs at %s (make deps mounts it): %w", bpffs, err)
	}
	g.closer = append(g.closer, func() error { return os.Remove(parent) })
	g.dir = filepath.Join(parent, "node")
	ledger, err := os.MkdirTemp("", own)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.closer = append(g.closer, func() error { return os.RemoveAll(ledger) })
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	g.xdp, g.tc = xdp.New(quiet, xdp.Options{BPFDir: g.dir}), tc.New(quiet, tc.Options{BPFDir: g.dir})
	g.closer = append(g.closer, func() error { return box.Do(func() error { return g.xdp.Down(context.Background()) }) },
		func() error { return box.Do(func() error { return g.tc.Down(context.Background()) }) })
	err = box.Do(func() (err error) {
		g.host, err = host.New(quiet, host.Options{StateDir: ledger})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.closer = append(g.closer, func() error { g.host.Close(); return nil })
	return g, nil
}

// New makes one that holds want.
func New(ctx context.Context, box *lane.Namespace, want State) (*Gateway, error) {
	g, err := Open(box)
	if err != nil {
		return nil, err
	}
	if err := g.Apply(ctx, want); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// SweepFlows does what the daemon does every five seconds: it removes the flows that have ended.
func (g *Gateway) SweepFlows(ctx context.Context) error {
	return g.box.Do(func() error {
		_, err := g.tc.Sweep(ctx)
		return err
	})
}

// Facts are what host knows of the namespace, for compile.
func (g *Gateway) Facts(ctx context.Context) (facts host.Facts, err error) {
	err = g.box.Do(func() error {
		facts, err = g.host.GatherFacts(ctx)
		return err
	})
	return facts, err
}

// Apply brings all parts of want about, in the engine's order.
func (g *Gateway) Apply(ctx context.Context, want State) error {
	return g.box.Do(func() error {
		if want.Host != nil {
			if err := converge(ctx, g.host, *want.Host); err != nil {
				return fmt.Errorf("host: %w", err)
			}
		}
		if want.TC != nil {
			if err := converge(ctx, g.tc, *want.TC); err != nil {
				return fmt.Errorf("tc: %w", err)
			}
		}
		if want.XDP != nil {
			g.digest = want.XDP.Digest
			if err := converge(ctx, g.xdp, *want.XDP); err != nil {
				return fmt.Errorf("xdp: %w", err)
			}
		}
		return nil
	})
}

// subsystem is what converge needs of one.
type subsystem[State, Op any] interface {
	Observe(ctx context.Context) (State, error)
	Diff(have, want State) []Op
	Apply(ctx context.Context, op Op) error
}

// converge brings a subsystem to a state, as the engine does.
func converge[State, Op any](ctx context.Context, s subsystem[State, Op], want State) error {
	have, err := s.Observe(ctx)
	if err != nil {
		return err
	}
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

// Dir is where the pins are.
func (g *Gateway) Dir() string { return g.dir }

// PrepareExplain loads the twin that says which rule it was.
func (g *Gateway) PrepareExplain(ctx context.Context, uplink string) error {
	return g.box.Do(func() error { return g.xdp.PrepareExplain(ctx, uplink) })
}

// Generation opens the live program of XDP, and its twin where that is prepared.
func (g *Gateway) Generation() (*pin.Generation, error) {
	return pin.At(g.dir).LoadGeneration("xdp", g.digest)
}

// Close takes everything away again, last things first. What host did goes with the namespace.
func (g *Gateway) Close() error {
	var errs []error
	for i := len(g.closer) - 1; i >= 0; i-- {
		errs = append(errs, g.closer[i]())
	}
	return errors.Join(errs...)
}
