package config

import "slices"

const defaultBGPPort port = 179

const bfdPort = 3784 // RFC 5881 section 4

func (b *builder) bgp(r *rawBGP) {
	if !r.written() {
		return
	}
	reservedASN(r.ASN, b.add)
	out := &BGP{
		ASN: uint32(r.ASN.v), RouterID: r.RouterID.v.Addr, Listen: uint16(r.Listen.or(defaultBGPPort)),
		FallOver: !r.FallOver.written() || bool(r.FallOver.v), Pos: r.pos,
	}
	groups := b.groups(r)
	names, addresses := map[string]at{}, map[string]at{}
	for i := range r.Neighbors.items {
		n := &r.Neighbors.items[i]
		b.unique(names, string(n.Name.v), n.Name.ok, n.Name.at, "neighbor")
		b.unique(addresses, n.Address.v.String(), n.Address.ok, n.Address.at, "neighbor address")
		out.Neighbors = append(out.Neighbors, groups.neighbor(n))
	}
	b.bfdPort(r)
	peers := b.peers(r, out)
	for i := range r.Advertise.items {
		out.Advertise = append(out.Advertise, peers.advertise(&r.Advertise.items[i]))
	}
	peers.once(r.Advertise.items, out.Advertise)
	out.Learn = peers.learn(&r.Learn)
	out.FlowSpec = peers.flowSpec(&r.FlowSpec, out)
	out.Blackhole = peers.blackhole(&r.Blackhole, out)
	b.cfg.BGP = out
}

// bfdPort reports the tunnels that listen where BFD does, on every address, as WireGuard, or on one: at the first neighbor with BFD.
func (b *builder) bfdPort(r *rawBGP) {
	n := slices.IndexFunc(r.Neighbors.items, func(n rawNeighbor) bool { return n.BFD.at.written() })
	if n < 0 {
		return
	}
	for _, t := range b.cfg.Tunnels {
		if t.Local.Port() == bfdPort {
			b.add(r.Neighbors.items[n].BFD.at, bad("BFD listens on UDP port %d, and so does tunnel %s", bfdPort, t.Name).or("write another local.port there"))
		}
	}
}

// reservedASN reports numbers that no network may have: RFC 6793 section 9 (AS_TRANS), RFC 7300.
func reservedASN(v num[asn], add func(at, problem)) {
	switch v.v {
	case 23456, 65535, 4294967295:
		add(v.at, bad("ASN %d is reserved", v.v))
	}
}
