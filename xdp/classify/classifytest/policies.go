// Package classifytest generates policies, and packets that come near their edges, for whoever checks a classifier
// against the reference model. The same rng state gives the same output.
package classifytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"sluice/xdp/classify"
)

// Policies returns one to six policies with nested prefixes of both families, port ranges (some rules with more than
// one entry holds), shadow rules, exclusions, every other condition and every default. Ids count from 1; all of it compiles.
func Policies(rng *rand.Rand) []classify.Policy {
	g := &generator{rng: rng}
	policies := make([]classify.Policy, 1+rng.IntN(6))
	for i := range policies {
		policies[i] = classify.Policy{
			Name:      fmt.Sprintf("policy-%d", i),
			Default:   classify.Action(rng.IntN(3)),
			Fragments: classify.Fragments(rng.IntN(3)),
		}
		for range rng.IntN(50) { // several words of the bit vectors, and policies that begin within one
			policies[i].Rules = append(policies[i].Rules, g.rule())
		}
	}
	return policies
}

type generator struct {
	rng    *rand.Rand
	lastID uint32
	pool   []netip.Prefix   // to nest new prefixes in
	sets   [][]netip.Prefix // lists that several rules share, as named sets do
}

func (g *generator) chance(percent int) bool { return g.rng.IntN(100) < percent }

func (g *generator) rule() classify.Rule {
	g.lastID++
	r := classify.Rule{
		ID:       g.lastID,
		Name:     fmt.Sprintf("rule-%d", g.lastID),
		Protocol: classify.AnyProtocol,
		Action:   classify.Accept,
		Shadow:   g.chance(15),
	}
	if g.chance(50) {
		r.Action = classify.Drop
	}
	if g.chance(70) {
		r.From = g.prefixes()
	}
	if g.chance(70) {
		r.To = g.prefixes()
	}
	if g.chance(25) {
		r.NotFrom = g.prefixes()
	}
	if g.chance(25) {
		r.NotTo = g.prefixes()
	}
	if g.chance(60) {
		r.Protocol = int(protocols[g.rng.IntN(len(protocols))])
	}
	if g.chance(40) {
		r.Ports = g.ports()
	}
	if g.chance(15) {
		r.SourcePorts = g.ports()
	}
	g.conditions(&r)
	return r
}

// protocols: with ports, ICMP of both families, GRE and ESP, and one that nothing knows. None is an IPv6 extension.
var protocols = [...]uint8{6, 6, 6, 17, 17, 132, 136, 1, 58, 47, 50, 253}

// prefixes returns a list of 0 to 7; an empty one is not nil and matches nothing.
func (g *generator) prefixes() []netip.Prefix {
	out := []netip.Prefix{}
	if g.chance(3) {
		return out
	}
	if len(g.sets) > 0 && g.chance(20) {
		return g.sets[g.rng.IntN(len(g.sets))]
	}
	for range 1 + g.rng.IntN(7) {
		out = append(out, g.prefix())
	}
	g.sets = append(g.sets, out)
	return out
}

// prefix returns one that relates to an earlier one: the same, around it, within it, beside it; or a new one.
func (g *generator) prefix() netip.Prefix {
	p := g.fresh()
	if len(g.pool) > 0 && g.chance(75) {
		p = g.pool[g.rng.IntN(len(g.pool))]
		switch g.rng.IntN(4) {
		case 0: // around
			p = netip.PrefixFrom(p.Addr(), g.rng.IntN(p.Bits()+1)).Masked()
		case 1: // within
			bits := p.Bits() + g.rng.IntN(p.Addr().BitLen()-p.Bits()+1)
			p = netip.PrefixFrom(g.within(p), bits).Masked()
		case 2: // beside
			if p.Bits() > 0 {
				p = netip.PrefixFrom(flip(p.Addr(), p.Bits()-1), p.Bits())
			}
		}
	}
	g.pool = append(g.pool, p)
	if g.chance(10) { // unmasked, as operators write
		return netip.PrefixFrom(g.within(p), p.Bits())
	}
	return p
}

func (g *generator) fresh() netip.Prefix {
	bases := [...]string{"10.0.0.0/8", "198.18.0.0/15", "192.0.2.0/24", "2001:db8::/32", "fd00::/8"}
	base := netip.MustParsePrefix(bases[g.rng.IntN(len(bases))])
	bits := base.Bits() + g.rng.IntN(base.Addr().BitLen()-base.Bits()+1)
	return netip.PrefixFrom(g.within(base), bits).Masked()
}

// within returns an address of p.
func (g *generator) within(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	for bit := p.Bits(); bit < a.BitLen(); bit++ {
		if g.chance(50) {
			a = flip(a, bit)
		}
	}
	return a
}

// flip inverts one bit of an address, counted from the first.
func flip(a netip.Addr, bit int) netip.Addr {
	raw := a.AsSlice()
	raw[bit/8] ^= 0x80 >> (bit % 8)
	flipped, _ := netip.AddrFromSlice(raw)
	return flipped
}

// ports returns 0 to 11 ranges: they overlap, touch, and stand at both ends of the port space.
func (g *generator) ports() []classify.PortRange {
	out := []classify.PortRange{}
	if g.chance(3) {
		return out
	}
	n := 1 + g.rng.IntN(3)
	if g.chance(20) {
		n = 5 + g.rng.IntN(7)
	}
	for range n {
		first := []int{0, 22, 53, 80, 443, 1024, 8000, 65535, g.rng.IntN(65536)}[g.rng.IntN(9)]
		last := min(65535, first+[]int{0, 0, 1, 999, g.rng.IntN(65536)}[g.rng.IntN(5)])
		out = append(out, classify.PortRange{First: uint16(first), Last: uint16(last)})
	}
	return out
}
