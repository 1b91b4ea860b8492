package main

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

// gateway is Sluice in a site: the file parsed and compiled, and its programs loaded by the subsystems that the daemon
// uses. Nothing here is made for the benchmark.
type gateway struct {
	dir    string // of pins
	digest string // of the XDP generation
	closer []func() error
}

const (
	bpffs     = "/sys/fs/bpf"
	pinPrefix = "sluice-lane-" // then the process that made it
)

// sweep removes the pins of runs that were killed; everything else of theirs went with them.
func sweep() error {
	left, err := filepath.Glob(filepath.Join(bpffs, pinPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), pinPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// newGateway loads XDP, and, where path is given, the tcx programs of the same file as well.
func newGateway(ctx context.Context, s *lane.Site, want xdp.State, path *tc.State) (*gateway, error) {
	parent, err := os.MkdirTemp(bpffs, fmt.Sprintf("%s%d-", pinPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("this needs root and a bpffs at /sys/fs/bpf (make deps mounts it): %w", err)
	}
	g := &gateway{dir: filepath.Join(parent, "node"), digest: want.Digest}
	g.closer = append(g.closer, func() error { return os.Remove(parent) })
	err = s.Box.Do(func() error {
		quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
		ingress := xdp.New(quiet, xdp.Options{BPFDir: g.dir})
		g.closer = append(g.closer, func() error { return s.Box.Do(func() error { return ingress.Down(context.Background()) }) })
		if path != nil {
			hooks := tc.New(quiet, tc.Options{BPFDir: g.dir})
			g.closer = append(g.closer, func() error { return s.Box.Do(func() error { return hooks.Down(context.Background()) }) })
			if err := converge(ctx, hooks, *path); err != nil {
				return fmt.Errorf("tc: %w", err)
			}
		}
		if err := converge(ctx, ingress, want); err != nil {
			return fmt.Errorf("xdp: %w", err)
		}
		return ingress.PrepareExplain(ctx, lane.Uplink)
	})
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// desire is the way of a configuration from its bytes to what the subsystems should hold.
func (c *Content) desire() (*compile.Desired, error) {
	file, set := c.YAML()
	cfg, err := config.Parse(config.Source{Name: "bench.yaml", Bytes: file, ReadFile: func(string) ([]byte, error) { return set, nil }})
	if err != nil {
		return nil, fmt.Errorf("parse the file of %d %s: %.2000w", c.Size(), c.Kind, err)
	}
	return compile.Compile(cfg, compile.Runtime{}, compile.Facts{Host: host.Facts{Links: []host.LinkFact{
		{Name: lane.Downlink, Index: 2, MTU: 1500, Up: true, Carrier: true},
		{Name: lane.Uplink, Index: 1, MTU: 1500, Up: true, Carrier: true},
	}}})
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

// generation opens the live program of XDP and its twin that explains.
func (g *gateway) generation() (*pin.Generation, error) {
	return pin.At(g.dir).LoadGeneration("xdp", g.digest)
}

// liveGeneration makes a site with a gateway and opens its programs; the closer takes all of it away.
func liveGeneration(ctx context.Context, w *workshop, want xdp.State) (*lane.Site, *pin.Generation, func() error, error) {
	site, err := lane.NewSite(w.lane)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err := newGateway(ctx, site, want, nil)
	if err != nil {
		return nil, nil, nil, errors.Join(err, site.Close())
	}
	gen, err := g.generation()
	if err != nil {
		return nil, nil, nil, errors.Join(err, g.Close(), site.Close())
	}
	return site, gen, func() error { return errors.Join(gen.Close(), g.Close(), site.Close()) }, nil
}

// Close takes everything away again, last things first.
func (g *gateway) Close() error {
	var errs []error
	for i := len(g.closer) - 1; i >= 0; i-- {
		errs = append(errs, g.closer[i]())
	}
	return errors.Join(errs...)
}
