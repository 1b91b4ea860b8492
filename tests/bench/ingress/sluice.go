package main

import (
	"context"
	"errors"
	"fmt"

	"sluice/control/compile"
	"sluice/control/host"
	"sluice/tests/bench/gateway"
	"sluice/tests/bench/lane"
	"sluice/xdp"
	"sluice/xdp/pin"
)

// desire is what the subsystems of a box in a site should hold by the content's file.
func (c *Content) desire() (*compile.Desired, error) {
	file, set := c.YAML()
	want, err := gateway.Desire(file, func(string) ([]byte, error) { return set, nil }, host.Facts{Links: []host.LinkFact{
		{Name: lane.Downlink, Index: 2, MTU: 1500, Up: true, Carrier: true},
		{Name: lane.Uplink, Index: 1, MTU: 1500, Up: true, Carrier: true},
	}})
	if err != nil {
		return nil, fmt.Errorf("the file of %d %s: %w", c.Size(), c.Kind, err)
	}
	return want, nil
}

// liveGeneration makes a site with a gateway and opens its programs; the closer takes all of it away.
func liveGeneration(ctx context.Context, w *workshop, want xdp.State) (*lane.Site, *pin.Generation, func() error, error) {
	site, err := lane.NewSite(w.lane)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err := gateway.New(ctx, site.Box, gateway.State{XDP: &want})
	if err != nil {
		return nil, nil, nil, errors.Join(err, site.Close())
	}
	gen, err := explained(ctx, g)
	if err != nil {
		return nil, nil, nil, errors.Join(err, g.Close(), site.Close())
	}
	return site, gen, func() error { return errors.Join(gen.Close(), g.Close(), site.Close()) }, nil
}

// explained opens the generation of a gateway with its twin.
func explained(ctx context.Context, g *gateway.Gateway) (*pin.Generation, error) {
	if err := g.PrepareExplain(ctx, lane.Uplink); err != nil {
		return nil, err
	}
	return g.Generation()
}
