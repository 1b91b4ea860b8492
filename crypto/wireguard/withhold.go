package wireguard

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"sluice/crypto/path"
)

// Withhold takes the routes to these peers away, by tunnel and public key, and keeps them away until it is called without
// them: no step that was planned before puts one back. It waits for no process, be it that the tunnel's stands still: its peers are down for
// that very reason. Who calls it has what is wanted compiled again: that agrees, or puts back what is withheld no more.
func (d *Driver) Withhold(ctx context.Context, peers map[string][]string) error {
	due := d.withheld.Set(peers) // first: a step that waits for us sees it
	if len(due) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.paths.Lock()
	defer d.paths.Unlock()
	return d.withheld.Withdraw(d.links, due, d.carrying)
}

// carrying is what the device sends where: that may be newer or older than what is wanted. One that this driver has never seen at work, as
// its process has ended and cannot be started, has nothing behind any of its routes. The caller holds d.paths.
func (d *Driver) carrying(name string) (netlink.Link, iter.Seq[path.Carried], error) {
	link, err := d.links.Find(name)
	last, known := d.carried[name]
	if err == nil && !known {
		return link, nil, nil
	}
	return link, last.carried(), err
}

// carries notes what a device sends where since a step was done.
func (d *Driver) carries(op Op) {
	d.paths.Lock()
	defer d.paths.Unlock()
	name := op.tunnel.Name
	t := d.carried[name]
	switch op.kind {
	case removeTunnel:
		delete(d.carried, name)
		return
	case createTunnel, replaceTunnel:
		t = Tunnel{Name: name}
	case addPeers:
		t = t.after(op.peers, nil)
	case updatePeer:
		op.peer.AllowedIPs = op.change.allowed
		t = t.after([]Peer{op.peer}, nil)
	case dropAllowed:
		t = t.after(nil, op.change.allowed)
	case removePeer: // not what it had when the step was planned: another one may have that by now
		t.Peers = slices.DeleteFunc(slices.Clone(t.Peers), func(p Peer) bool { return p.PublicKey == op.peer.PublicKey })
	default:
		return
	}
	d.carried[name] = t
}

// after is t once peers have got more prefixes, which others may have had, and some have gone. Nothing that t has is written to.
func (t Tunnel) after(gain []Peer, gone []netip.Prefix) Tunnel {
	moved := map[netip.Prefix]bool{}
	for _, p := range gone {
		moved[p] = true
	}
	gained := map[string][]netip.Prefix{}
	for _, p := range gain {
		gained[p.PublicKey] = p.AllowedIPs
		for _, prefix := range p.AllowedIPs {
			moved[prefix] = true
		}
	}
	has := func(prefix netip.Prefix) bool { return moved[prefix] }
	t.Peers = slices.Clone(t.Peers)
	for i, p := range t.Peers {
		more := gained[p.PublicKey]
		if delete(gained, p.PublicKey); len(more) > 0 || slices.ContainsFunc(p.AllowedIPs, has) {
			t.Peers[i].AllowedIPs = append(slices.DeleteFunc(slices.Clone(p.AllowedIPs), has), more...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(gained)) {
		t.Peers = append(t.Peers, Peer{PublicKey: key, AllowedIPs: gained[key]})
	}
	return t
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
