package classify

import (
	"math/bits"
	"net/netip"
)

// hull is around what a rule matches, for a quick look.
type hull struct {
	v4, v6         bool
	exact          bool // it is no more than the rule matches, exclusions aside
	protocol       int
	from, to       span // where there are both families, everywhere
	ports, sources PortRange
}

func newHull(e *extent) hull {
	h := hull{protocol: e.rule.Protocol, from: around(e.from), to: around(e.to), ports: aroundPorts(e.ports), sources: aroundPorts(e.sources)}
	both := familiesOf(e.rule.From) & familiesOf(e.rule.To)
	h.v4, h.v6 = both&familyIPv4 != 0, both&familyIPv6 != 0
	h.exact = len(e.from) < 2 && len(e.to) < 2 && len(e.ports) < 2 && len(e.sources) < 2
	return h
}

// around spans a list that outermost made; nil is everywhere.
func around(list []netip.Prefix) span {
	if len(list) == 0 || familyOf(list[0]) != familyOf(list[len(list)-1]) {
		return span{key{}, key{^uint64(0), ^uint64(0)}}
	}
	return span{spanOf(list[0]).first, spanOf(list[len(list)-1]).last}
}

func aroundPorts(list []PortRange) PortRange {
	if len(list) == 0 {
		return PortRange{0, 65535}
	}
	return PortRange{list[0].First, list[len(list)-1].Last}
}

func (h *hull) meets(o *hull) bool {
	return (h.v4 && o.v4 || h.v6 && o.v6) &&
		(h.protocol == AnyProtocol || o.protocol == AnyProtocol || h.protocol == o.protocol) &&
		h.ports.First <= o.ports.Last && o.ports.First <= h.ports.Last &&
		h.sources.First <= o.sources.Last && o.sources.First <= h.sources.Last &&
		h.from.meets(o.from) && h.to.meets(o.to)
}

// loss is about how much of o a rule with h does not match, as the sum over the axes of the halvings that lead there: 0
// is all of it, 1 half.
func (h *hull) loss(o *hull) int {
	n := bits.Len16(o.ports.Last-o.ports.First) - bits.Len16(min(h.ports.Last, o.ports.Last)-max(h.ports.First, o.ports.First)) +
		bits.Len16(o.sources.Last-o.sources.First) - bits.Len16(min(h.sources.Last, o.sources.Last)-max(h.sources.First, o.sources.First)) +
		h.from.loss(o.from) + h.to.loss(o.to)
	if h.protocol != AnyProtocol && h.protocol != o.protocol {
		n += 2
	}
	return n
}

func (s span) loss(o span) int {
	if s.first.compare(o.first) <= 0 && s.last.compare(o.last) >= 0 {
		return 0
	}
	cut := o
	if cut.first.compare(s.first) < 0 {
		cut.first = s.first
	}
	if cut.last.compare(s.last) > 0 {
		cut.last = s.last
	}
	return max(1, o.width()-cut.width())
}

// width is the bits in which the ends of a span differ: with prefixes, those that it leaves open.
func (s span) width() int {
	if s.first.hi != s.last.hi {
		return 64 + bits.Len64(s.first.hi^s.last.hi)
	}
	return bits.Len64(s.first.lo ^ s.last.lo)
}

func (s span) meets(o span) bool {
	return s.first.compare(o.last) <= 0 && o.first.compare(s.last) <= 0
}
