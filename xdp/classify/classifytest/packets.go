package classifytest

import (
	"math/rand/v2"
	"net/netip"

	"sluice/xdp/classify"
)

// Packets returns n packets that real frames can carry: one family, ports where the protocol has them and the
// fragment shows them, no protocol that is an IPv6 extension header. Most come from a rule and lie in or at the edges
// of its prefixes and port ranges.
func Packets(rng *rand.Rand, policies []classify.Policy, n int) []classify.Packet {
	g := &generator{rng: rng}
	var rules []classify.Rule
	for _, p := range policies {
		rules = append(rules, p.Rules...)
	}
	packets := make([]classify.Packet, 0, n)
	for range n {
		if len(rules) == 0 || g.chance(5) {
			packets = append(packets, g.packet(classify.Rule{Protocol: classify.AnyProtocol}))
			continue
		}
		packets = append(packets, g.packet(rules[rng.IntN(len(rules))]))
	}
	return packets
}

// packet returns one that the rule is likely to match or to miss by little.
func (g *generator) packet(r classify.Rule) classify.Packet {
	v6 := g.chance(50)
	if lists := append(append([]netip.Prefix{}, r.From...), r.To...); len(lists) > 0 {
		v6 = lists[g.rng.IntN(len(lists))].Addr().Is6()
	}
	p := classify.Packet{
		Src:      g.address(r.From, r.NotFrom, v6),
		Dst:      g.address(r.To, r.NotTo, v6),
		Protocol: protocols[g.rng.IntN(len(protocols))],
		TTL:      64,
	}
	if r.Protocol != classify.AnyProtocol && g.chance(90) {
		p.Protocol = uint8(r.Protocol)
	} else if (r.Ports != nil || r.SourcePorts != nil) && g.chance(80) {
		p.Protocol = 6
	}
	if r.TTL != 0 && g.chance(70) {
		p.TTL = r.TTL
	} else if g.chance(10) {
		p.TTL = []uint8{1, 2, 63, 254, 255}[g.rng.IntN(5)]
	}
	if g.chance(15) {
		p.Fragment = true
		p.NonFirst = g.chance(60)
	}
	g.meet(&p, &r)
	if hasPorts(p.Protocol) && !p.NonFirst {
		p.HasPorts = true
		p.SrcPort, p.DstPort = g.port(r.SourcePorts), g.port(r.Ports)
	}
	return p
}

func hasPorts(protocol uint8) bool {
	return protocol == 6 || protocol == 17 || protocol == 132 || protocol == 136
}

// address returns one in or at the edge of a prefix of the lists, or, where they have none of the family, anywhere.
func (g *generator) address(in, notIn []netip.Prefix, v6 bool) netip.Addr {
	list := in
	if len(in) == 0 || len(notIn) > 0 && g.chance(40) {
		list = notIn
	}
	var family []netip.Prefix
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			family = append(family, p)
		}
	}
	if len(family) == 0 {
		p := g.fresh()
		for p.Addr().Is6() != v6 {
			p = g.fresh()
		}
		return g.within(p)
	}
	p := family[g.rng.IntN(len(family))].Masked()
	a := p.Addr()
	switch g.rng.IntN(5) {
	case 0: // the first
	case 1: // the last
		a = last(p)
	case 2: // one before; the neighbour wraps at neither end of the address space
		if before := a.Prev(); before.IsValid() {
			a = before
		}
	case 3: // one behind
		if behind := last(p).Next(); behind.IsValid() {
			a = behind
		}
	default:
		a = g.within(p)
	}
	return a
}

// last returns the last address of a masked prefix.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr()
	for bit := p.Bits(); bit < a.BitLen(); bit++ {
		a = flip(a, bit)
	}
	return a
}

// port returns one in or at the edge of a range, or any.
func (g *generator) port(ranges []classify.PortRange) uint16 {
	if len(ranges) == 0 || g.chance(10) {
		return uint16(g.rng.IntN(65536))
	}
	r := ranges[g.rng.IntN(len(ranges))]
	switch g.rng.IntN(5) {
	case 0:
		return r.First
	case 1:
		return r.Last
	case 2:
		return r.First - 1 // wraps: port 65535 is an edge as well
	case 3:
		return r.Last + 1
	}
	return r.First + uint16(g.rng.IntN(int(r.Last)-int(r.First)+1))
}
