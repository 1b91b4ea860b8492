package classifytest

import "sluice/xdp/classify"

// IP protocol numbers (IANA).
const (
	icmp   = 1
	tcp    = 6
	icmpv6 = 58
)

// Interfaces is the number of interfaces that rules and packets are about: their indexes are 1 to Interfaces.
const Interfaces = 3

// On puts policies on real interfaces: the n-th index instead of n.
func On(policies []classify.Policy, ifindexes ...int) {
	for _, p := range policies {
		for _, r := range p.Rules {
			for i := range r.Interfaces {
				if n := r.Interfaces[i].Index; n != 0 && int(n) <= len(ifindexes) {
					r.Interfaces[i].Index = uint32(ifindexes[n-1])
				}
			}
		}
	}
}

// conditions adds some beside addresses, protocol and ports.
func (g *generator) conditions(r *classify.Rule) {
	if r.Protocol == tcp && g.chance(30) {
		r.TCPMask = uint8(1+g.rng.IntN(255)) & uint8(g.rng.IntN(256))
		r.TCPFlags = uint8(g.rng.IntN(256)) & r.TCPMask
	}
	if (r.Protocol == icmp || r.Protocol == icmpv6) && g.chance(60) {
		r.ICMPTypes = g.icmpTypes()
	}
	if g.chance(10) {
		r.Fragment = classify.FragmentMatch(1 + g.rng.IntN(4))
	}
	if g.chance(6) {
		r.VLANs = g.ranges([]int{0, 1, 99, 100, 4093}, 4094)
	}
	if g.chance(6) {
		r.Lengths = g.ranges([]int{0, 100, 128, 576, 1499}, 65535)
	}
	if g.chance(6) {
		r.DSCP = g.rng.Uint64() & g.rng.Uint64()
	}
	if g.chance(10) {
		r.TTL = []uint8{1, 64, 255}[g.rng.IntN(3)]
	}
	if g.chance(6) {
		r.Interfaces = []classify.Interface{}
		for range g.rng.IntN(4) {
			n := g.rng.IntN(Interfaces + 1) // 0: not there
			r.Interfaces = append(r.Interfaces, classify.Interface{Name: []string{"gone", "eth1", "eth2", "eth3"}[n], Index: uint32(n)})
		}
	}
}

// ranges returns 0 to 3 from one of the numbers on.
func (g *generator) ranges(from []int, most int) []classify.Range {
	out := []classify.Range{}
	for range g.rng.IntN(4) {
		first := from[g.rng.IntN(len(from))]
		last := min(most, first+[]int{0, 1, 100, most}[g.rng.IntN(4)])
		out = append(out, classify.Range{First: uint16(first), Last: uint16(last)})
	}
	return out
}

// icmpTypes returns 0 to 4 rectangles. None reaches neighbour discovery, which is link control and meets no policy.
func (g *generator) icmpTypes() []classify.ICMPRange {
	out := []classify.ICMPRange{}
	for range g.rng.IntN(5) {
		first := []uint8{0, 1, 2, 3, 8, 11, 127, 128}[g.rng.IntN(8)]
		r := classify.ICMPRange{TypeFirst: first, TypeLast: first + uint8(g.rng.IntN(3)), CodeLast: 255}
		if g.chance(40) {
			r.CodeFirst = uint8(g.rng.IntN(3))
			r.CodeLast = r.CodeFirst + uint8(g.rng.IntN(3))
		}
		out = append(out, r)
	}
	return out
}

// meet gives a packet that has addresses, protocol and fragment what a rule asks for beside, or misses it by little.
func (g *generator) meet(p *classify.Packet, r *classify.Rule) {
	p.Length = 100 // more than any headers
	if len(r.Lengths) > 0 {
		p.Length = max(p.Length, min(int(g.port(r.Lengths)), 1600))
	}
	if len(r.VLANs) > 0 {
		p.VLAN = min(g.port(r.VLANs), 4094)
	} else if g.chance(10) {
		p.VLAN = 100
	}
	if r.DSCP != 0 || g.chance(10) {
		p.DSCP = uint8(g.rng.IntN(64))
	}
	p.Ifindex = 1 + uint32(g.rng.IntN(Interfaces))
	if p.NonFirst {
		return
	}
	switch {
	case p.Protocol == tcp:
		p.TCPFlags = uint8(g.rng.IntN(256))
		if g.chance(60) {
			p.TCPFlags = p.TCPFlags&^r.TCPMask | r.TCPFlags
		}
	case p.Protocol == icmp && p.Src.Is4(), p.Protocol == icmpv6 && p.Src.Is6():
		p.HasICMP = true
		p.ICMPType = []uint8{0, 1, 2, 3, 8, 11, 128, 129}[g.rng.IntN(8)]
		p.ICMPCode = uint8(g.rng.IntN(5))
		if len(r.ICMPTypes) > 0 && g.chance(70) {
			of := r.ICMPTypes[g.rng.IntN(len(r.ICMPTypes))]
			p.ICMPType = uint8(g.between(int(of.TypeFirst), int(of.TypeLast)))
			p.ICMPCode = uint8(g.between(int(of.CodeFirst), int(of.CodeLast)))
		}
	}
}

// between returns a number in a range or at its edges, of a byte.
func (g *generator) between(first, last int) int {
	return min(max(first-1+g.rng.IntN(last-first+3), 0), 255)
}
