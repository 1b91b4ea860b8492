package compile

import (
	"fmt"
	"slices"

	"sluice/bgp/flowspec"
	"sluice/xdp/classify"
)

// IP protocol numbers (IANA).
const (
	flowSpecICMP   = 1
	flowSpecTCP    = 6
	flowSpecUDP    = 17
	flowSpecICMPv6 = 58
)

// flowSpecSet is what a rule allows, each as alternatives of which the classifier's rule takes one, or for lengths, DSCP
// and ICMP the whole list. An empty list is no alternative at all.
type flowSpecSet struct {
	protocols []uint8
	ports     []portPair
	flags     []flagCube
	fragments []classify.FragmentMatch
	lengths   []classify.Range // nil: any
	dscp      uint64           // 0: any, unless noDSCP
	noDSCP    bool
	icmp      []classify.ICMPRange // nil: any
}

// portPair is what destination and source must be; nil: any.
type portPair struct{ dst, src []classify.PortRange }

// flagCube are flag octets that equal value within mask.
type flagCube struct{ mask, value uint8 }

func (s *flowSpecSet) never() bool {
	return len(s.protocols) == 0 || len(s.ports) == 0 || len(s.flags) == 0 || len(s.fragments) == 0 ||
		s.noDSCP || s.lengths != nil && len(s.lengths) == 0 || s.icmp != nil && len(s.icmp) == 0
}

// flowSpecSets reads every component but the prefixes.
func flowSpecSets(rule flowspec.Rule) (s flowSpecSet, err error) {
	has := func(types ...flowspec.Type) bool {
		return slices.ContainsFunc(types, func(t flowspec.Type) bool { _, ok := rule.Component(t); return ok })
	}
	ports := has(flowspec.Port, flowspec.DestinationPort, flowspec.SourcePort)
	flags, icmp := has(flowspec.TCPFlags), has(flowspec.ICMPType, flowspec.ICMPCode)
	s.protocols = flowSpecProtocols(rule, ports, flags, icmp)
	s.ports = flowSpecPorts(rule, ports || flags)
	if s.flags, err = flowSpecFlags(rule); err != nil {
		return s, err
	}
	if s.fragments, err = flowSpecFragments(rule, ports || flags || icmp); err != nil {
		return s, err
	}
	if icmp {
		s.icmp = []classify.ICMPRange{}
		for _, kind := range flowSpecSpans(rule, flowspec.ICMPType, 255) {
			for _, code := range flowSpecSpans(rule, flowspec.ICMPCode, 255) {
				s.icmp = append(s.icmp, classify.ICMPRange{TypeFirst: uint8(kind.First), TypeLast: uint8(kind.Last),
					CodeFirst: uint8(code.First), CodeLast: uint8(code.Last)})
			}
		}
	}
	if s.lengths, err = flowSpecLengths(rule); err != nil {
		return s, err
	}
	if c, ok := rule.Component(flowspec.DSCP); ok {
		for point := range uint64(64) {
			if c.Holds(point) {
				s.dscp |= 1 << point
			}
		}
		if s.noDSCP = s.dscp == 0; s.dscp == ^uint64(0) {
			s.dscp = 0
		}
	}
	if label := flowSpecSpans(rule, flowspec.FlowLabel, 1<<20-1); len(label) == 0 {
		s.protocols = nil
	} else if label[0] != (span{0, 1<<20 - 1}) {
		c, _ := rule.Component(flowspec.FlowLabel)
		return s, fmt.Errorf("XDP does not look at flow labels: %s", c)
	}
	return s, nil
}

// flowSpecProtocols: ports are of TCP and UDP alone, flags of TCP, and ICMP is that of the family.
func flowSpecProtocols(rule flowspec.Rule, ports, flags, icmp bool) []uint8 {
	own := flowSpecICMP
	if rule.Family == flowspec.IPv6 {
		own = flowSpecICMPv6
	}
	c, named := rule.Component(flowspec.Protocol)
	out := []uint8{}
	for p := range 256 {
		if (!named || c.Holds(uint64(p))) && (!ports || p == flowSpecTCP || p == flowSpecUDP) &&
			(!flags || p == flowSpecTCP) && (!icmp || p == own) {
			out = append(out, uint8(p))
		}
	}
	return out
}

// flowSpecPorts: "port" is the destination's or the source's. seen says that the transport header must be there: then a
// pair names ports, if only all.
func flowSpecPorts(rule flowspec.Rule, seen bool) []portPair {
	if !seen {
		return []portPair{{}}
	}
	dst, src := flowSpecSpans(rule, flowspec.DestinationPort, 65535), flowSpecSpans(rule, flowspec.SourcePort, 65535)
	either, named := rule.Component(flowspec.Port)
	if !named {
		return portPairs(nil, dst, src)
	}
	spans := holding(either, 65535)
	return portPairs(portPairs(nil, common(dst, spans), src), dst, common(src, spans))
}

func portPairs(out []portPair, dst, src []span) []portPair {
	if len(dst) == 0 || len(src) == 0 {
		return out
	}
	pair := portPair{dst: portRanges(dst), src: portRanges(src)}
	if src[0] == (span{0, 65535}) {
		pair.src = nil // the destination's are named
	}
	return append(out, pair)
}

func portRanges(spans []span) []classify.PortRange {
	out := []classify.PortRange{}
	for _, s := range spans {
		out = append(out, classify.PortRange{First: uint16(s.First), Last: uint16(s.Last)})
	}
	return out
}

// flowSpecLengths: 65535 stands for all above in the classifier, so a rule may not tell those apart.
func flowSpecLengths(rule flowspec.Rule) ([]classify.Range, error) {
	const most, beyond = 65535, 1 << 32
	spans := flowSpecSpans(rule, flowspec.Length, beyond)
	if len(spans) > 0 && spans[0] == (span{0, beyond}) {
		return nil, nil
	}
	out := []classify.Range{}
	for _, s := range spans {
		above := s.Last > most && s.Last < beyond || s.First > most
		if below := s.Last == most; above || below && rule.Family == flowspec.IPv6 {
			c, _ := rule.Component(flowspec.Length)
			return nil, fmt.Errorf("XDP does not tell lengths from 65535 bytes on apart: %s", c)
		}
		out = append(out, classify.Range{First: uint16(s.First), Last: uint16(min(s.Last, most))})
	}
	return out, nil
}

// span is a range of numbers, both ends inclusive.
type span struct{ First, Last uint64 }

// flowSpecSpans are the numbers up to most that a component allows, all where the rule has none.
func flowSpecSpans(rule flowspec.Rule, t flowspec.Type, most uint64) []span {
	if c, ok := rule.Component(t); ok {
		return holding(c, most)
	}
	return []span{{0, most}}
}

// holding finds them without trying every number: what a term says changes at its value and behind it alone.
func holding(c flowspec.Component, most uint64) []span {
	turns := []uint64{0}
	for _, t := range c.Terms {
		for _, at := range []uint64{t.Value, t.Value + 1} {
			if at <= most && at >= t.Value {
				turns = append(turns, at)
			}
		}
	}
	slices.Sort(turns)
	turns = slices.Compact(turns)
	var out []span
	for i, at := range turns {
		if !c.Holds(at) {
			continue
		}
		last := most
		if i+1 < len(turns) {
			last = turns[i+1] - 1
		}
		if n := len(out); n > 0 && out[n-1].Last+1 == at {
			out[n-1].Last = last
			continue
		}
		out = append(out, span{at, last})
	}
	return out
}

// common are the numbers of both.
func common(a, b []span) (out []span) {
	for _, x := range a {
		for _, y := range b {
			if first, last := max(x.First, y.First), min(x.Last, y.Last); first <= last {
				out = append(out, span{first, last})
			}
		}
	}
	return out
}
