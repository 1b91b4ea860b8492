package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/load"
)

// group is the lanes of one experiment, all up at once.
type group struct {
	log   *slog.Logger
	load  *load.Generator
	cpu   int
	lanes []*pathLane
}

// pathLane is a site with one rival in it, and the list that it denies.
type pathLane struct {
	Rival
	list   []netip.Prefix
	site   *Site
	unload func() error
}

// client and server are where the load runs.
func (l *pathLane) client() *lane.Namespace {
	if l.Key == Node {
		return l.site.A.Box
	}
	return l.site.A.Workload
}

func (l *pathLane) server() (*lane.Namespace, netip.Addr) {
	if l.Key == Node {
		return l.site.B.Box, l.site.B.uplink.Addr()
	}
	return l.site.B.Workload, l.site.B.addresses[0]
}

func (l *pathLane) String() string { return fmt.Sprintf("%s, %d denied", l.Label, len(l.list)) }

// newGroup makes the lanes. On error nothing of them stays.
func newGroup(ctx context.Context, w *workshop, log *slog.Logger, g *load.Generator, lanes []*pathLane) (*group, error) {
	cpu, err := lane.LastCPU()
	if err != nil {
		return nil, err
	}
	out := &group{log, g, cpu, lanes}
	var loading errgroup.Group
	loading.SetLimit(2)
	for _, l := range lanes {
		loading.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			start := time.Now()
			if l.site, err = NewSite(); err != nil {
				return err
			}
			if l.unload, err = l.load(ctx, w, l.site, l.list); err != nil {
				return fmt.Errorf("%s: %w", l, err)
			}
			log.Info("loaded", "lane", l.String(), "took", time.Since(start).Round(time.Millisecond))
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// Close takes all lanes away.
func (g *group) Close() error {
	var errs []error
	for _, l := range g.lanes {
		if l.unload != nil {
			errs = append(errs, l.unload())
		}
		if l.site != nil {
			errs = append(errs, l.site.Close())
		}
	}
	return errors.Join(errs...)
}

// run is one run of a lane. What the daemon does every few seconds is done behind it.
func (g *group) run(ctx context.Context, l *pathLane, s Shape, d time.Duration) (load.Result, error) {
	server, spec := g.spec(l, s)
	spec.Duration = d
	var result load.Result
	var err error
	for tries := 1; ; tries++ {
		result, err = g.load.Run(ctx, l.client(), server, spec)
		if err == nil || ctx.Err() != nil || tries == 3 {
			break
		}
		g.log.Warn("again", "lane", l.String(), "what", s.String(), "error", err)
	}
	return result, errors.Join(err, l.sweep(ctx))
}

func (g *group) spec(l *pathLane, s Shape) (server *lane.Namespace, spec load.Spec) {
	server, address := l.server()
	return server, load.Spec{Kind: s.Kind, Connections: s.Connections, CPU: g.cpu, Server: netip.AddrPortFrom(address, s.port())}
}

// sweep does what the daemon does every few seconds.
func (l *pathLane) sweep(ctx context.Context) (err error) {
	for _, e := range []*end{&l.site.A, &l.site.B} {
		if e.gateway != nil {
			err = errors.Join(err, e.gateway.SweepFlows(ctx))
		}
	}
	return err
}

// streams are the rounds of streams of an experiment: past filters there are many lanes, and of those only each one's own curve counts.
func streams(all int, e Experiment) int {
	if e == EgressFiltering {
		return max(1, all/3)
	}
	return all
}

// measure runs a shape through some lanes in rounds, each in an order of its own.
func (g *group) measure(ctx context.Context, o Options, e Experiment, s Shape, lanes []*pathLane) ([]Measurement, error) {
	out := make([]Measurement, len(lanes))
	for i, l := range lanes {
		out[i] = Measurement{Experiment: e, Shape: s, Size: len(l.list), Rival: l.Key}
	}
	var err error
	if s.Kind == load.Stream {
		err = rounds(ctx, streams(o.Streams, e), lanes, func(i int) error {
			result, err := g.run(ctx, lanes[i], s, o.Each)
			if err == nil {
				out[i].add(result)
			}
			return err
		})
	} else {
		err = g.takeTurns(ctx, o, s, lanes, out)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	for i := range out {
		g.log.Info("measured", "what", s.String(), "lane", lanes[i].String(), "cpu", out[i].Cost().String(), "rate", out[i].rate().String(), "retransmitted", out[i].Retransmitted)
	}
	return out, nil
}
