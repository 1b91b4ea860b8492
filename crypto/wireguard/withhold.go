package wireguard

import (
	"context"
	"iter"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/path"
)

// Withhold takes the routes to these peers away, by tunnel and public key, and keeps them away until it is called without
// them: no step that was planned before puts one back. It waits for the step of this driver that runs, and for no other
// subsystem's. Who calls it has what is wanted compiled again: that agrees, or puts back what is withheld no more.
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
	return d.withheld.Withdraw(d.links, due, d.carrying)
}

// carrying is what the device sends where: that may be newer or older than what is wanted. Of one that does not answer, or has ended, it is
// what was last seen: its peers are down for that very reason.
func (d *Driver) carrying(name string) (netlink.Link, iter.Seq[path.Carried], error) {
	link, err := d.links.Find(name)
	if err != nil {
		return nil, nil, err
	}
	dev, err := d.running(link)
	if err == nil {
		var have *wgtypes.Device
		if have, err = dev.state(); err == nil {
			now := Tunnel{Name: name}
			for _, p := range have.Peers {
				now.Peers = append(now.Peers, Peer{PublicKey: encodeKey(p.PublicKey), AllowedIPs: allowedOf(p)})
			}
			d.carried[name] = now
			return link, now.carried(), nil
		}
	}
	if last, known := d.carried[name]; known {
		return link, last.carried(), nil
	}
	return nil, nil, err
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
			if !yield(path.Carried{Peer: p.PublicKey, Prefixes: p.AllowedIPs}) {
				return
			}
		}
	}
}
