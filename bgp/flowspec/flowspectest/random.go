// Package flowspectest makes up rules, and packets that have a chance to meet them.
package flowspectest

import (
	"math/rand/v2"
	"net/netip"

	"sluice/bgp/flowspec"
)

var (
	addresses4 = []string{"203.0.113.53", "203.0.113.54", "203.0.112.1", "198.51.100.7", "10.0.1.10"}
	addresses6 = []string{"2001:db8::53", "2001:db8::54", "2001:db8:1::1", "fd00:1::10", "2001:db8:0:1::35"}
	protocols  = []uint64{1, 6, 17, 58, 47, 132, 0, 255}
	numbers    = []uint64{0, 1, 22, 53, 63, 64, 80, 443, 1023, 1024, 8080, 65534, 65535}
)

// Rule makes up one of a family, with at least one component.
func Rule(rng *rand.Rand, f flowspec.Family) flowspec.Rule {
	last := flowspec.Fragment
	if f == flowspec.IPv6 {
		last = flowspec.FlowLabel
	}
	r := flowspec.Rule{Family: f}
	for len(r.Components) == 0 {
		for t := flowspec.Destination; t <= last; t++ {
			if rng.IntN(4) == 0 {
				r.Components = append(r.Components, component(rng, f, t))
			}
		}
	}
	return r
}

func component(rng *rand.Rand, f flowspec.Family, t flowspec.Type) flowspec.Component {
	c := flowspec.Component{Type: t}
	if t == flowspec.Destination || t == flowspec.Source {
		addr := address(rng, f)
		bits := []int{0, 8, 23, 24, 32, addr.BitLen()}[rng.IntN(6)]
		if f == flowspec.IPv6 && bits > 1 && rng.IntN(4) == 0 {
			c.Offset = uint8(1 + rng.IntN(bits-1))
			addr = without(addr, int(c.Offset))
		}
		c.Prefix = netip.PrefixFrom(addr, bits).Masked()
		return c
	}
	for range 1 + rng.IntN(3) {
		op := uint8(rng.IntN(8))
		if rng.IntN(3) == 0 {
			op |= flowspec.And
		}
		c.Terms = append(c.Terms, flowspec.NewTerm(op, value(rng, t)))
	}
	return c
}

// without is addr with zeros for its first bits.
func without(addr netip.Addr, bits int) netip.Addr {
	front, _ := addr.Prefix(bits)
	out, mask := addr.AsSlice(), front.Addr().AsSlice()
	for i := range out {
		out[i] ^= mask[i]
	}
	rest, _ := netip.AddrFromSlice(out)
	return rest
}

func value(rng *rand.Rand, t flowspec.Type) uint64 {
	switch t {
	case flowspec.Protocol:
		return pick(rng, protocols)
	case flowspec.ICMPType, flowspec.ICMPCode:
		return uint64(rng.IntN(12))
	case flowspec.TCPFlags:
		return uint64(rng.IntN(64))
	case flowspec.Fragment:
		return uint64(rng.IntN(16))
	case flowspec.DSCP:
		return uint64(rng.IntN(64))
	}
	return pick(rng, numbers)
}

// Packet makes up one of a family that the kernel could show: a later fragment has no transport header.
func Packet(rng *rand.Rand, f flowspec.Family) flowspec.Packet {
	p := flowspec.Packet{
		Src: address(rng, f), Dst: address(rng, f), Protocol: uint8(pick(rng, protocols[:5])),
		Length: uint32(pick(rng, numbers)), DSCP: uint8(rng.IntN(64)), FlowLabel: uint32(pick(rng, numbers)),
		DontFragment: f == flowspec.IPv4 && rng.IntN(3) == 0,
	}
	if rng.IntN(3) == 0 {
		p.More, p.Later = rng.IntN(2) == 0, rng.IntN(2) == 0
	}
	icmp := p.Protocol == 1 && f == flowspec.IPv4 || p.Protocol == 58 && f == flowspec.IPv6
	if p.Transport = !p.Later; !p.Transport {
		return p
	}
	switch {
	case p.Protocol == 6:
		p.TCPFlags = uint16(rng.IntN(64))
		fallthrough
	case p.Protocol == 17 || p.Protocol == 132:
		p.SrcPort, p.DstPort = uint16(pick(rng, numbers)), uint16(pick(rng, numbers))
	case icmp:
		p.ICMPType, p.ICMPCode = uint8(rng.IntN(12)), uint8(rng.IntN(12))
	}
	return p
}

func address(rng *rand.Rand, f flowspec.Family) netip.Addr {
	if f == flowspec.IPv4 {
		return netip.MustParseAddr(pick(rng, addresses4))
	}
	return netip.MustParseAddr(pick(rng, addresses6))
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
