package classify

import (
	"slices"

	"sluice/xdp/abi"
)

// Range is inclusive, host byte order.
type Range struct{ First, Last uint16 }

// PortRange is a range of ports.
type PortRange = Range

// ICMPRange is a rectangle of ICMP types and codes, inclusive.
type ICMPRange struct{ TypeFirst, TypeLast, CodeFirst, CodeLast uint8 }

// FragmentMatch says which fragments a rule is about. The values equal enum fragment_match in abi.h.
type FragmentMatch uint8

// FragmentAny: whole packets and all fragments. FragmentNo: whole packets. FragmentYes: fragments. FragmentInitial: those
// with the transport header. FragmentLater: those without.
const (
	FragmentAny FragmentMatch = iota
	FragmentNo
	FragmentYes
	FragmentInitial
	FragmentLater
)

// Interface is one that a rule is limited to.
type Interface struct {
	Name  string
	Index uint32 // 0: it is not there, and nothing comes in by it
}

// Plain says whether a rule asks for nothing but addresses, protocol and ports.
func (r *Rule) Plain() bool {
	return r.TTL == 0 && r.Fragment == FragmentAny && r.DSCP == 0 && r.Interfaces == nil && r.VLANs == nil && r.Lengths == nil &&
		!r.asksHeader()
}

// head writes what a policy says beside its plans.
func (p *Policy) head(to *abi.Policy) {
	to.DefaultAction, to.DefaultID, to.Fragments, to.PerPacket = uint8(p.Default), p.DefaultID, uint8(p.Fragments), 0
	for i := range p.Rules {
		to.PerPacket |= p.Rules[i].perPacket()
		if to.PerPacket == abi.PerPacketSees|abi.PerPacketDoes {
			return
		}
	}
}

// perPacket says why what a rule makes of one packet does not hold for the flow. Fragments are judged one by one anyway.
func (r *Rule) perPacket() (why uint8) {
	if r.TTL != 0 || r.DSCP != 0 || r.VLANs != nil || r.Lengths != nil || r.TCPMask != 0 {
		why = abi.PerPacketSees
	}
	if r.Action == Limit || r.Sample != 0 || r.Shadow {
		why |= abi.PerPacketDoes
	}
	return why
}

// asksHeader says whether a rule asks for TCP flags or ICMP types.
func (r *Rule) asksHeader() bool { return r.TCPMask != 0 || r.ICMPTypes != nil }

// asksTransport says whether a rule asks for what a later fragment hides.
func (r *Rule) asksTransport() bool { return r.Ports != nil || r.SourcePorts != nil || r.asksHeader() }

// rest writes what match_rest and match_header compare. A condition with several alternatives takes an entry for each,
// and no two of them match one packet.
func rest(r *Rule, entry abi.Rule) []abi.Rule {
	entry.TTL, entry.Fragment, entry.DSCP = r.TTL, uint8(r.Fragment), r.DSCP
	if r.TTL != 0 || r.Fragment != FragmentAny || r.DSCP != 0 {
		entry.Flags |= abi.RuleRest
	}
	if r.TCPMask != 0 {
		entry.Flags |= abi.RuleTCP
		entry.TCPMask, entry.TCPFlags = r.TCPMask, r.TCPFlags
	}
	out := []abi.Rule{entry}
	if r.Interfaces != nil {
		out = times(out, 0, r.ifindexes(), func(e *abi.Rule, ifindex uint32) {
			e.Flags |= abi.RuleRest
			e.Ifindex = ifindex
		})
	}
	if r.VLANs != nil {
		out = times(out, 0, mergePorts(r.VLANs), func(e *abi.Rule, v Range) {
			e.Flags |= abi.RuleRest | abi.RuleVLAN
			e.VLANFirst, e.VLANLast = v.First, v.Last
		})
	}
	if r.Lengths != nil {
		out = times(out, 0, mergePorts(r.Lengths), func(e *abi.Rule, l Range) {
			e.Flags |= abi.RuleRest | abi.RuleLength
			e.LengthFirst, e.LengthLast = l.First, l.Last
		})
	}
	if r.ICMPTypes != nil {
		out = times(out, 0, mergeICMP(r.ICMPTypes), func(e *abi.Rule, i ICMPRange) {
			e.Flags |= abi.RuleICMP
			e.ICMPTypeFirst, e.ICMPTypeLast, e.ICMPCodeFirst, e.ICMPCodeLast = i.TypeFirst, i.TypeLast, i.CodeFirst, i.CodeLast
		})
	}
	return out
}

// restEntries is the number of entries that rest returns.
func restEntries(r *Rule) int {
	if r.Plain() {
		return 1
	}
	n := max(1, len(mergePorts(r.VLANs))) * max(1, len(mergePorts(r.Lengths))) * max(1, len(mergeICMP(r.ICMPTypes)))
	return n * max(1, len(r.ifindexes()))
}

// ifindexes are those of the interfaces that are there, each once.
func (r *Rule) ifindexes() []uint32 {
	var out []uint32
	for _, i := range r.Interfaces {
		if i.Index != 0 && !slices.Contains(out, i.Index) {
			out = append(out, i.Index)
		}
	}
	return out
}

// mergeICMP returns the same types and codes as rectangles that do not overlap: types beside one another that have the
// same codes are one.
func mergeICMP(ranges []ICMPRange) []ICMPRange {
	var out, open []ICMPRange // open: those that end with the type before
	for kind := range 256 {
		var codes []Range
		for _, r := range ranges {
			if int(r.TypeFirst) <= kind && kind <= int(r.TypeLast) {
				codes = append(codes, Range{uint16(r.CodeFirst), uint16(r.CodeLast)})
			}
		}
		var here []ICMPRange
		for _, c := range mergePorts(codes) {
			here = append(here, ICMPRange{uint8(kind), uint8(kind), uint8(c.First), uint8(c.Last)})
		}
		if slices.EqualFunc(open, here, func(a, b ICMPRange) bool { return a.CodeFirst == b.CodeFirst && a.CodeLast == b.CodeLast }) {
			for i := range open {
				open[i].TypeLast = uint8(kind)
			}
			continue
		}
		out, open = append(out, open...), here
	}
	return append(out, open...)
}

// matchRest is match_rest of match.h.
func matchRest(r *abi.Rule, p *Packet) bool {
	length := uint16(min(p.Length, 0xffff))
	switch {
	case r.TTL != 0 && r.TTL != p.TTL,
		r.Ifindex != 0 && r.Ifindex != p.Ifindex,
		r.DSCP != 0 && r.DSCP>>(p.DSCP&0x3f)&1 == 0,
		r.Flags&abi.RuleVLAN != 0 && (p.VLAN < r.VLANFirst || p.VLAN > r.VLANLast),
		r.Flags&abi.RuleLength != 0 && (length < r.LengthFirst || length > r.LengthLast):
		return false
	}
	switch FragmentMatch(r.Fragment) {
	case FragmentNo:
		return !p.Fragment
	case FragmentYes:
		return p.Fragment
	case FragmentInitial:
		return p.Fragment && !p.NonFirst
	case FragmentLater:
		return p.NonFirst
	}
	return true
}

// matchHeader is match_header of match.h.
func matchHeader(r *abi.Rule, p *Packet) bool {
	if r.Flags&abi.RuleTCP != 0 {
		return p.TCPFlags&r.TCPMask == r.TCPFlags
	}
	return p.HasICMP && p.ICMPType >= r.ICMPTypeFirst && p.ICMPType <= r.ICMPTypeLast &&
		p.ICMPCode >= r.ICMPCodeFirst && p.ICMPCode <= r.ICMPCodeLast
}

// restProblems are those of a rule that the tables would not say as it is meant.
func restProblems(r *Rule) []string {
	var out []string
	add := func(wrong bool, text string) {
		if wrong {
			out = append(out, text)
		}
	}
	add(r.TCPMask != 0 && r.Protocol != protocolTCP, "it asks for TCP flags, and its protocol is not TCP")
	add(r.TCPFlags&^r.TCPMask != 0, "it asks for a TCP flag that it does not compare")
	add(r.ICMPTypes != nil && r.Protocol != protocolICMP && r.Protocol != protocolICMPv6, "it asks for ICMP types, and its protocol is not ICMP")
	add(r.Fragment > FragmentLater, "no such kind of fragment")
	backward := func(r Range) bool { return r.First > r.Last }
	add(slices.ContainsFunc(r.VLANs, backward), "a range of VLAN ids is upside down")
	add(slices.ContainsFunc(r.Lengths, backward), "a range of lengths is upside down")
	add(slices.ContainsFunc(r.ICMPTypes, func(r ICMPRange) bool { return r.TypeFirst > r.TypeLast || r.CodeFirst > r.CodeLast }),
		"a range of ICMP types or codes is upside down")
	return out
}

// restNever says why the conditions beside addresses and ports match no packet at all, or "".
func restNever(r *Rule) string {
	switch {
	case r.ICMPTypes != nil && len(r.ICMPTypes) == 0:
		return "icmp_types is empty"
	case r.VLANs != nil && len(r.VLANs) == 0:
		return "vlan is empty"
	case r.Lengths != nil && len(r.Lengths) == 0:
		return "length is empty"
	case r.Interfaces != nil && len(r.ifindexes()) == 0:
		return "none of its interfaces is there"
	}
	return ""
}

// restWithin says whether every packet that inner's conditions beside addresses, protocol and ports hold of meets those
// of outer, too. Where it says no, it may still be so.
func restWithin(inner, outer *Rule) bool {
	return (outer.TTL == 0 || outer.TTL == inner.TTL) &&
		(outer.Fragment == FragmentAny || outer.Fragment == inner.Fragment ||
			outer.Fragment == FragmentYes && inner.Fragment >= FragmentInitial) &&
		(outer.DSCP == 0 || inner.DSCP != 0 && inner.DSCP&^outer.DSCP == 0) &&
		outer.TCPMask&^inner.TCPMask == 0 && outer.TCPFlags == inner.TCPFlags&outer.TCPMask &&
		(outer.Interfaces == nil || inner.Interfaces != nil && subset(inner.ifindexes(), outer.ifindexes())) &&
		(outer.VLANs == nil || inner.VLANs != nil && portsWithin(mergePorts(inner.VLANs), mergePorts(outer.VLANs))) &&
		(outer.Lengths == nil || inner.Lengths != nil && portsWithin(mergePorts(inner.Lengths), mergePorts(outer.Lengths))) &&
		(outer.ICMPTypes == nil || inner.ICMPTypes != nil && icmpWithin(mergeICMP(inner.ICMPTypes), mergeICMP(outer.ICMPTypes)))
}

func subset(inner, outer []uint32) bool {
	return !slices.ContainsFunc(inner, func(i uint32) bool { return !slices.Contains(outer, i) })
}

func icmpWithin(inner, outer []ICMPRange) bool {
	for _, r := range inner {
		if !slices.ContainsFunc(outer, func(o ICMPRange) bool {
			return o.TypeFirst <= r.TypeFirst && r.TypeLast <= o.TypeLast && o.CodeFirst <= r.CodeFirst && r.CodeLast <= o.CodeLast
		}) {
			return false
		}
	}
	return true
}
