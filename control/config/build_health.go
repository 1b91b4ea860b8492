package config

import (
	"net/netip"
	"slices"
	"time"
)

const (
	defaultProbeInterval            = time.Second
	defaultDownAfter     probeCount = 3
	defaultUpAfter       probeCount = 5
	minProbeInterval                = 100 * time.Millisecond
	maxProbeInterval                = time.Minute
)

// health gives every probe to its peer: the one whose prefixes hold the address, or that it is written at.
func (b *builder) health(r *rawTunnel, out *Tunnel) {
	h := &r.Health
	for i := range r.Peers.items {
		p := &r.Peers.items[i]
		switch {
		case p.Probe.ok:
			b.probeOf(r, out, i)
			fallthrough
		case p.Probe.written():
			if !h.written() {
				b.add(p.Probe.at, bad("the tunnel has no health").or("write health: {} there: a probe a second, down after 3 lost ones, up after 5 answered ones"))
			}
		}
	}
	if !h.written() {
		return
	}
	out.Health = &Health{Probe: h.Probe.v.Addr, Interval: defaultProbeInterval, DownAfter: int(h.DownAfter.or(defaultDownAfter)), UpAfter: int(h.UpAfter.or(defaultUpAfter))}
	if h.Interval.ok {
		out.Health.Interval = time.Duration(h.Interval.v)
		if out.Health.Interval < minProbeInterval || out.Health.Interval > maxProbeInterval {
			b.add(h.Interval.at, bad("interval %s is not allowed", out.Health.Interval).or("write 100ms to 1m"))
		}
	}
	if h.Probe.ok {
		b.probeOfTunnel(r, out)
	}
	probed := func(p rawPeer) bool { return p.Probe.written() }
	if !h.Probe.written() && !slices.ContainsFunc(r.Peers.items, probed) && !r.Peers.unsure() {
		b.add(h.at, bad("health has nothing to probe").or("write probe: ADDRESS here, or at peers"))
	}
	b.uniqueProbes(r, out)
}

// holder is the peer whose prefixes hold an address; -1: none.
func holder(t *Tunnel, a netip.Addr) int {
	return slices.IndexFunc(t.Peers, func(p Peer) bool {
		return slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
	})
}

// OnLink says whether an address is in a network of the tunnel's device.
func (t *Tunnel) OnLink(a netip.Addr) bool {
	return slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
}

// probeOf judges a probe that a peer has of its own.
func (b *builder) probeOf(r *rawTunnel, out *Tunnel, peer int) {
	p := r.Peers.items[peer]
	switch of := holder(out, p.Probe.v.Addr); {
	case of == peer || !allGood(p.Prefixes):
	case of >= 0:
		b.add(p.Probe.at, bad("%s is in the prefixes of peer %s", p.Probe.v, out.Peers[of].Name).or("write an address that this peer answers for"))
	case !out.OnLink(p.Probe.v.Addr):
		b.add(p.Probe.at, bad("%s is neither in the peer's prefixes nor in a network of the tunnel", p.Probe.v).or("write an address that this peer answers for"))
	}
}

// probeOfTunnel finds the peer of health.probe. In a network of the tunnel it is the only peer's.
func (b *builder) probeOfTunnel(r *rawTunnel, out *Tunnel) {
	a := r.Health.Probe
	peer := holder(out, a.v.Addr)
	switch {
	case peer >= 0:
	case len(out.Peers) == 1 && out.OnLink(a.v.Addr):
		peer = 0
	case r.Peers.unsure() || slices.ContainsFunc(r.Peers.items, func(p rawPeer) bool { return !allGood(p.Prefixes) }):
		return
	case out.OnLink(a.v.Addr):
		b.add(a.at, bad("%s is nobody's: the tunnel has %d peers", a.v, len(out.Peers)).or("write probe: at the peers"))
		return
	default:
		b.add(a.at, bad("%s is neither in the prefixes of a peer nor in a network of the tunnel", a.v).or("write an address that a peer answers for"))
		return
	}
	if !r.Peers.items[peer].Probe.written() { // its own wins
		out.Peers[peer].Probe = a.v.Addr
	}
}

// uniqueProbes reports an address of a tunnel's network that two peers would answer for.
func (b *builder) uniqueProbes(r *rawTunnel, out *Tunnel) {
	seen := map[string]at{}
	for i, p := range out.Peers {
		if own := r.Peers.items[i].Probe; p.Probe.IsValid() {
			b.unique(seen, p.Probe.String(), own.ok, own.at, "probe")
		}
	}
}
