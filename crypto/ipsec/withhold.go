package ipsec

import (
	"context"
	"iter"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// Withhold takes the routes to these peers away, by tunnel and name, and keeps them away until it is called without them: no
// step that was planned before puts one back. It waits for the step of this driver that runs, and for no other subsystem's.
// Who calls it has what is wanted compiled again: that agrees, or puts back what is withheld no more.
func (d *Driver) Withhold(ctx context.Context, peers map[string][]string) error {
	due := d.withheld.Set(peers) // first: a step that waits for us sees it
	if len(due) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return err
	}
	return d.withheld.Withdraw(d.links, due, d.carrying)
}

// carrying is the tunnel as the last step had it.
func (d *Driver) carrying(name string) (netlink.Link, iter.Seq[path.Carried], error) {
	t := d.tunnels[name]
	if t == nil {
		return nil, nil, unix.ENODEV // no step has made it yet
	}
	link, err := d.links.Find(name)
	return link, t.want.carried(), err
}

// Wanted is s without the routes that are withheld.
func (d *Driver) Wanted(s State) State {
	var out State
	for _, t := range s.Tunnels {
		t.Routes, _ = d.withheld.Keep(t.Name, t.Routes, t.carried())
		out.Tunnels = append(out.Tunnels, t)
	}
	return out
}

func (t Tunnel) carried() iter.Seq[path.Carried] {
	return func(yield func(path.Carried) bool) {
		for _, p := range t.Peers {
			if !yield(path.Carried{Peer: p.Name, Prefixes: p.Prefixes}) {
				return
			}
		}
	}
}
