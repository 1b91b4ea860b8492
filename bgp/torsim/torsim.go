// Package torsim is a top-of-rack router for the lab: a second speaker that takes everything it hears, shows it, and
// announces a few prefixes of its own, such as a default route. It helps its neighbors through a graceful restart: what
// they announced stays, marked stale, until they have announced it again or their restart time is over.
//
// It needs a process of its own in the ToR's network namespace: GoBGP makes sockets on any thread and keeps settings
// of the whole process.
package torsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"sluice/bgp"
)

// defaultRestartTime turns graceful restart on, which helping needs, for neighbors that name no time.
const defaultRestartTime = 120 * time.Second

// Config is the whole of a ToR.
type Config struct {
	ASN       uint32
	RouterID  netip.Addr
	Port      uint16
	Neighbors []bgp.Neighbor
	Announce  []netip.Prefix
	Install   bgp.Learn // which of what it hears goes to its kernel (protocol 186), so that it can forward; zero: nothing
}

// Entry is one path in the ToR's table.
type Entry struct {
	Prefix      netip.Prefix `json:"prefix"`
	NextHop     netip.Addr   `json:"next_hop"`
	Communities []uint32     `json:"communities"`
	Stale       bool         `json:"stale"`
}

// Collector is the router.
type Collector struct{ speaker *bgp.Subsystem }

// New returns a Collector that does nothing yet.
func New(log *slog.Logger) *Collector {
	return &Collector{speaker: bgp.New(log, bgp.Options{})}
}

// Start listens and dials. On an error nothing is left running.
func (c *Collector) Start(ctx context.Context, cfg Config) error {
	want := bgp.State{ASN: cfg.ASN, RouterID: cfg.RouterID, Port: cfg.Port, Learn: cfg.Install}
	for _, n := range cfg.Neighbors {
		if n.RestartTime == 0 {
			n.RestartTime = defaultRestartTime
		}
		want.Neighbors = append(want.Neighbors, n)
	}
	for _, p := range cfg.Announce {
		want.Paths = append(want.Paths, bgp.Path{Prefix: p})
	}
	have, err := c.speaker.Observe(ctx)
	if err != nil {
		return fmt.Errorf("torsim: %w", err)
	}
	for _, op := range bgp.Diff(have, want) {
		if err := c.speaker.Apply(ctx, op); err != nil {
			return fmt.Errorf("torsim: %w", errors.Join(err, c.speaker.Down(ctx)))
		}
	}
	return nil
}

// Stop takes leave of the neighbors with a Cease and of the kernel's routes.
func (c *Collector) Stop(ctx context.Context) error { return c.speaker.Down(ctx) }

// Table returns what the neighbors announced, sorted by prefix.
func (c *Collector) Table() ([]Entry, error) {
	rib, err := c.speaker.RIB()
	if err != nil {
		return nil, fmt.Errorf("torsim: %w", err)
	}
	out := make([]Entry, len(rib))
	for i, e := range rib {
		out[i] = Entry{Prefix: e.Prefix, NextHop: e.NextHop, Communities: e.Communities, Stale: e.Stale}
	}
	return out, nil
}

// Sessions returns the state of every neighbor.
func (c *Collector) Sessions(ctx context.Context) ([]bgp.NeighborStatus, error) {
	return c.speaker.Status(ctx)
}

// Events carries the sessions' ups and downs, see bgp.Subsystem.
func (c *Collector) Events() <-chan bgp.Event { return c.speaker.Events() }
