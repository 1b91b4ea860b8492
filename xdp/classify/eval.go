package classify

import (
	"math/bits"
	"net/netip"
	"sort"

	"sluice/xdp/abi"
)

// Eval judges a packet by a policy as classify.h does, with the same tables; its parts have the names of those there.
// The policy must exist: what C answers with REASON_INTERNAL is a panic here.
func (t *Tables) Eval(policy int, p Packet) Decision {
	src, dst := t.classify(p)
	pol := t.Policies[policy]
	if p.Fragment && Fragments(pol.Fragments) == FragDrop {
		return Decision{Action: Drop, Reason: ByFragmentRule}
	}
	d := Decision{Action: Action(pol.DefaultAction), Reason: ByDefault}
	if pol.Count == 0 {
		return d
	}
	last := pol.First + pol.Count - 1
	for word := pol.First / 64; word <= last/64; word++ {
		candidates := t.Classes[src].Word[word] & t.Classes[dst].Word[word] & rangeMask(word, pol.First, last)
		for ; candidates != 0; candidates &= candidates - 1 {
			entry := &t.Rules[word*64+uint32(bits.TrailingZeros64(candidates))]
			if applyRule(entry, pol, p, &d) {
				return d
			}
		}
	}
	return d
}

// classify returns the classes of both addresses.
func (t *Tables) classify(p Packet) (src, dst uint32) {
	if p.Src.Is4() {
		return t.lookup(abi.ClassSrc4, p.Src), t.lookup(abi.ClassDst4, p.Dst)
	}
	return t.lookup(abi.ClassSrc6, p.Src), t.lookup(abi.ClassDst6, p.Dst)
}

// lookup finds the class of the longest prefix that contains an address. The greatest prefix not behind the address is
// it, or else every prefix that contains the address also contains that one and is no longer than what the two have
// in common: so the search goes on there.
func (t *Tables) lookup(table abi.ClassTable, addr netip.Addr) uint32 {
	prefixes := t.Prefixes[table]
	addr = addr.WithZone("")
	for length := addr.BitLen(); length >= 0; {
		limit, err := addr.Prefix(length)
		if err != nil {
			break // the zero Addr
		}
		n := sort.Search(len(prefixes), func(i int) bool { return prefixes[i].Prefix.Compare(limit) > 0 })
		if n == 0 {
			break
		}
		found := prefixes[n-1]
		if found.Prefix.Contains(addr) {
			return found.Class
		}
		length = min(length-1, commonBits(found.Prefix.Addr(), addr))
	}
	return uint32(table)
}

// commonBits counts the leading bits that two addresses of one family share.
func commonBits(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return i*8 + bits.LeadingZeros8(d)
		}
	}
	return a.BitLen()
}

type match int

const (
	noMatch match = iota
	matched
	matchUnknown // the packet hides its ports
)

func matchRule(r *abi.Rule, p Packet) match {
	if r.Flags&abi.RuleAnyProtocol == 0 && r.Protocol != p.Protocol {
		return noMatch
	}
	if r.TTL != 0 && r.TTL != p.TTL {
		return noMatch
	}
	if r.Flags&(abi.RulePorts|abi.RuleSourcePorts) == 0 {
		return matched
	}
	if p.NonFirst {
		return matchUnknown
	}
	if !p.HasPorts ||
		r.Flags&abi.RulePorts != 0 && !inRanges(&r.Ports, p.DstPort) ||
		r.Flags&abi.RuleSourcePorts != 0 && !inRanges(&r.SourcePorts, p.SrcPort) {
		return noMatch
	}
	return matched
}

func inRanges(ranges *[abi.MaxPortRanges]abi.PortRange, port uint16) bool {
	for _, r := range ranges {
		if port >= r.First && port <= r.Last {
			return true
		}
	}
	return false
}

// applyRule returns true when the entry decided.
func applyRule(r *abi.Rule, policy abi.Policy, p Packet, d *Decision) bool {
	switch matchRule(r, p) {
	case matched:
		if r.Flags&abi.RuleShadow != 0 {
			d.Shadows = append(d.Shadows, r.ID)
			return false
		}
		d.Rule, d.Reason, d.Action = r.ID, ByRule, Drop
		if Action(r.Action) == Accept {
			d.Action = Accept
		}
		return true
	case matchUnknown:
		if r.Flags&abi.RuleShadow != 0 || Action(policy.DefaultAction) == Continue {
			return false
		}
		if Fragments(policy.Fragments) == FragAccept {
			d.Action, d.Reason = Accept, ByFragmentRule
		} else {
			d.Action, d.Reason = Action(policy.DefaultAction), ByFragment
		}
		return true
	}
	return false
}

// rangeMask keeps the bits of word that belong to entries first to last, inclusive.
func rangeMask(word, first, last uint32) uint64 {
	mask := ^uint64(0)
	if word == first/64 {
		mask &= ^uint64(0) << (first % 64)
	}
	if word == last/64 {
		mask &= ^uint64(0) >> (63 - last%64)
	}
	return mask
}
