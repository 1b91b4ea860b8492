package classify

import (
	"net/netip"
	"slices"
)

const (
	maxBoxes  = 64 // of a rule, or of what is left of one
	maxCovers = 24 // rules that may cover another together
	maxLoss   = 8  // of each of them
)

// What stands on the axis of destination ports beside ports.
const (
	hiddenPort = 65536 // of a later fragment: a rule with ports stops it, unless the policy continues
	noPort     = 65537 // of a protocol that has none
)

// box is a set of packets: an interval on each axis. The axes are source, destination, protocol, destination port,
// source port.
type box struct {
	v6    bool
	spans [5]span
}

type span struct{ first, last key }

func numbers(first, last int) span { return span{key{lo: uint64(first)}, key{lo: uint64(last)}} }

func spanOf(p netip.Prefix) span {
	m := memberOf(p, 0)
	return span{m.first, m.last()}
}

// boxes are what a rule matches, its exclusions and the conditions of restFields left aside; nil where they are too
// many. continues: the policy passes rules over whose ports cannot be seen.
func (e *extent) boxes(continues bool) []box {
	from, to := orEverywhere(e.rule.From, e.from), orEverywhere(e.rule.To, e.to)
	ports := e.portSpans(continues)
	if len(from)*len(to)*len(ports) > maxBoxes {
		return nil
	}
	protocol := numbers(0, 255)
	if e.rule.Protocol != AnyProtocol {
		protocol = numbers(e.rule.Protocol, e.rule.Protocol)
	}
	var out []box
	for _, src := range from {
		for _, dst := range to {
			for _, p := range ports {
				if familyOf(src) == familyOf(dst) {
					out = append(out, box{familyOf(src) == 1, [5]span{spanOf(src), spanOf(dst), protocol, p[0], p[1]}})
				}
			}
		}
	}
	return out
}

// portSpans are pairs of destination and source ports.
func (e *extent) portSpans(continues bool) [][2]span {
	every := numbers(0, 65535)
	if e.rule.Ports == nil && e.rule.SourcePorts == nil {
		return [][2]span{{numbers(0, noPort), every}}
	}
	var out [][2]span
	for _, d := range orEveryPort(e.ports) {
		for _, s := range orEveryPort(e.sources) {
			out = append(out, [2]span{numbers(int(d.First), int(d.Last)), numbers(int(s.First), int(s.Last))})
		}
	}
	if !continues {
		out = append(out, [2]span{numbers(hiddenPort, hiddenPort), every})
	}
	return out
}

func orEveryPort(list []PortRange) []PortRange {
	if len(list) == 0 {
		return []PortRange{{0, 65535}}
	}
	return list
}

// without appends to out what is left of b when another box is cut out of it.
func (b box) without(cut box, out []box) []box {
	if !b.meets(cut) {
		return append(out, b)
	}
	for i := range b.spans {
		if b.spans[i].first.compare(cut.spans[i].first) < 0 {
			below := b
			below.spans[i].last = cut.spans[i].first.before()
			out = append(out, below)
			b.spans[i].first = cut.spans[i].first
		}
		if b.spans[i].last.compare(cut.spans[i].last) > 0 {
			above := b
			above.spans[i].first = cut.spans[i].last.next()
			out = append(out, above)
			b.spans[i].last = cut.spans[i].last
		}
	}
	return out
}

func (b box) meets(other box) bool {
	if b.v6 != other.v6 {
		return false
	}
	for i, s := range b.spans {
		if !s.meets(other.spans[i]) {
			return false
		}
	}
	return true
}

// corner is a box of one point.
func (b box) corner(last bool) box {
	for i, s := range b.spans {
		if last {
			b.spans[i].first = s.last
		} else {
			b.spans[i].last = s.first
		}
	}
	return b
}

// cover is an earlier rule with what it matches.
type cover struct {
	*extent
	loss  int // hull.loss
	boxes []box
}

// together returns earlier ones of the rules around e that match all that e could, and none of which can be left out;
// nil where there are none such, or too much is to be compared.
func together(e *extent, around []*extent, continues bool) []*extent {
	by := covers(e, around, continues)
	if len(by) == 0 {
		return nil
	}
	left := e.boxes(continues)
	if len(left) == 0 || !cornersCovered(left, by) {
		return nil
	}
	for i := range by { // one whose list has both halves
		if by[i].loss == 0 && exhausts(left, by[i:i+1]) {
			return []*extent{by[i].extent}
		}
	}
	if !exhausts(left, by) {
		return nil
	}
	slices.SortFunc(by, func(a, b cover) int { return a.order - b.order })
	for i := len(by) - 1; i >= 0; i-- { // the first ones stay: they are what decides
		if fewer := slices.Delete(slices.Clone(by), i, i+1); exhausts(left, fewer) {
			by = fewer
		}
	}
	var out []*extent
	for _, c := range by {
		out = append(out, c.extent)
	}
	return out
}

// covers picks the earlier rules that cut most off e; many small ones would only leave crumbs.
func covers(e *extent, around []*extent, continues bool) []cover {
	var by []cover
	for _, c := range around {
		if c.order > e.order {
			break
		}
		if loss := c.hull.loss(&e.hull); loss <= maxLoss && acts(c.rule) && c.sameRest(e) && !c.excludes(e) {
			by = append(by, cover{extent: c, loss: loss})
		}
	}
	slices.SortStableFunc(by, func(a, b cover) int { return a.loss - b.loss })
	by = by[:min(len(by), maxCovers)]
	if len(by) > 0 && by[0].loss > len(by) { // 2^-loss of e each: not nearly enough
		return nil
	}
	for i := range by {
		by[i].boxes = by[i].extent.boxes(continues)
	}
	return by
}

// excludes says whether what a rule excludes may be some of another's.
func (e *extent) excludes(other *extent) bool {
	return overlap(e.notFrom, orEverywhere(other.rule.From, other.from)) || overlap(e.notTo, orEverywhere(other.rule.To, other.to))
}

// cornersCovered is a quick look: most rules fail it.
func cornersCovered(left []box, by []cover) bool {
	for _, b := range left {
		for _, last := range []bool{false, true} {
			corner := b.corner(last)
			if !slices.ContainsFunc(by, func(c cover) bool { return slices.ContainsFunc(c.boxes, corner.meets) }) {
				return false
			}
		}
	}
	return true
}

func exhausts(left []box, by []cover) bool {
	var spare []box
	for _, c := range by {
		for _, cut := range c.boxes {
			spare = spare[:0]
			for _, b := range left {
				if spare = b.without(cut, spare); len(spare) > maxBoxes {
					return false
				}
			}
			left = slices.Clone(spare)
		}
		if len(left) == 0 {
			return true
		}
	}
	return false
}

// meets says whether two rules may match one packet whose ports can be seen, or that has none.
func (e *extent) meets(other *extent) bool {
	if !e.hull.meets(&other.hull) {
		return false
	}
	if e.hull.exact && other.hull.exact {
		return true
	}
	a, b := e.rule, other.rule
	return (a.Protocol == AnyProtocol || b.Protocol == AnyProtocol || a.Protocol == b.Protocol) &&
		(a.Ports == nil || b.Ports == nil || portsOverlap(e.ports, other.ports)) &&
		(a.SourcePorts == nil || b.SourcePorts == nil || portsOverlap(e.sources, other.sources)) &&
		(a.From == nil || b.From == nil || overlap(e.from, other.from)) &&
		(a.To == nil || b.To == nil || overlap(e.to, other.to))
}

func portsOverlap(a, b []PortRange) bool {
	return slices.ContainsFunc(a, func(x PortRange) bool {
		return slices.ContainsFunc(b, func(y PortRange) bool { return x.First <= y.Last && y.First <= x.Last })
	})
}

// overlap says whether a prefix of one list, which outermost made, overlaps with one of the other.
func overlap(a, b []netip.Prefix) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for _, p := range a {
		n, _ := slices.BinarySearchFunc(b, p, netip.Prefix.Compare)
		if n < len(b) && p.Overlaps(b[n]) || n > 0 && p.Overlaps(b[n-1]) {
			return true
		}
	}
	return false
}

// redundant says whether every packet of e would have the same verdict without it: by the rule that it returns, or
// where it returns none by the default. around are all rules that e may meet. An explicit drop is not the same as the
// default's, which tracked flows excuse.
func redundant(p *Policy, e *extent, around []*extent) ([]*extent, bool) {
	for _, c := range around {
		switch {
		case c.order < e.order || c.rule.Shadow:
		case c.rule.Action != e.rule.Action || c.rule.Argument != e.rule.Argument || !acts(c.rule) || !sameForFragments(p, e, c):
			return nil, false
		case c.covers(e):
			return []*extent{c}, true
		}
	}
	return nil, e.rule.Action == Accept && p.Default == Accept // then so is what FragDefault and FragAccept give
}

// sameForFragments: a rule with ports gives later fragments what the policy has for them, and one without its own action.
func sameForFragments(p *Policy, e, c *extent) bool {
	if p.Default == Continue || p.Fragments == FragDrop || e.asksPorts() == c.asksPorts() {
		return true
	}
	return e.rule.Action == Accept && (p.Default == Accept || p.Fragments == FragAccept)
}

// asksPorts says whether a later fragment hides what the rule asks for.
func (e *extent) asksPorts() bool {
	return e.rule.Ports != nil || e.rule.SourcePorts != nil || e.rule.TCPMask != 0 || e.rule.ICMPTypes != nil
}
