package classify

import (
	"net/netip"
	"slices"
	"sort"
)

// maxNear bounds how many rules one is compared with beyond pairs: 256 take some 10 us.
const maxNear = 256

// neighborhood finds the rules whose addresses overlap with those of another. A list that is long counts as everywhere.
type neighborhood struct {
	all      []*extent
	both     [2]axis // by source and by destination, of rules that have short lists of both
	one      [2]axis // of rules that have one short list
	anywhere []axisItem
	seen     []int32 // by rule: the last question that met it
	question int32
	found    []int32
}

func isShort(list []netip.Prefix) bool { return len(list) > 0 && len(list) <= shortList }

func newNeighborhood(all []*extent) *neighborhood {
	n := &neighborhood{all: all, seen: make([]int32, len(all))}
	for i, e := range all {
		from, to := isShort(e.from), isShort(e.to)
		switch {
		case from && to:
			n.both[0].add(e.from, int32(i))
			n.both[1].add(e.to, int32(i))
		case from:
			n.one[0].add(e.from, int32(i))
		case to:
			n.one[1].add(e.to, int32(i))
		default:
			n.anywhere = append(n.anywhere, axisItem{rule: int32(i)})
		}
	}
	for side := range 2 {
		n.both[side].sort()
		n.one[side].sort()
	}
	return n
}

// of returns rules that may match packets of e, in order and without e. complete: all of them. Where there are too many
// to look at, those with the rarer prefixes are looked at first.
func (n *neighborhood) of(e *extent) (near []*extent, complete bool) {
	n.question++
	places := n.places(e)
	slices.SortFunc(places, func(a, b stretches) int { return a.count - b.count })
	n.found = n.found[:0]
	left := maxNear
	for _, p := range places {
		for _, items := range p.parts {
			for _, i := range items {
				if left--; left < 0 {
					return n.sorted(), false
				}
				if n.seen[i.rule] != n.question && n.all[i.rule] != e && n.all[i.rule].meets(e) {
					n.found = append(n.found, i.rule)
				}
				n.seen[i.rule] = n.question
			}
		}
	}
	return n.sorted(), true
}

func (n *neighborhood) sorted() []*extent {
	slices.Sort(n.found)
	near := make([]*extent, len(n.found))
	for i, rule := range n.found {
		near[i] = n.all[rule]
	}
	return near
}

// stretches are the parts of one index that e may meet.
type stretches struct {
	parts [][]axisItem
	count int
}

func (n *neighborhood) places(e *extent) []stretches {
	both := n.both[0].near(e.from)
	if other := n.both[1].near(e.to); other.count < both.count {
		both = other
	}
	return []stretches{both, n.one[0].near(e.from), n.one[1].near(e.to), {[][]axisItem{n.anywhere}, len(n.anywhere)}}
}

// axis is rules by the prefixes of one of their lists, sorted.
type axis struct {
	items    []axisItem
	byPrefix map[netip.Prefix][2]int32 // where its items begin and end
	lengths  [2][129]bool              // in use, by family
}

type axisItem struct {
	prefix netip.Prefix // masked
	rule   int32
}

func (a *axis) add(list []netip.Prefix, rule int32) {
	for _, p := range list {
		a.items = append(a.items, axisItem{p, rule})
		a.lengths[familyOf(p)][p.Bits()] = true
	}
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

func (a *axis) sort() {
	slices.SortFunc(a.items, func(x, y axisItem) int {
		if n := x.prefix.Compare(y.prefix); n != 0 {
			return n
		}
		return int(x.rule - y.rule)
	})
	a.byPrefix = map[netip.Prefix][2]int32{}
	for i, item := range a.items {
		at, known := a.byPrefix[item.prefix]
		if !known {
			at[0] = int32(i)
		}
		at[1] = int32(i + 1)
		a.byPrefix[item.prefix] = at
	}
}

// near returns the stretches of items whose prefixes overlap with a list: those around first, then those within.
func (a *axis) near(list []netip.Prefix) stretches {
	if !isShort(list) {
		return stretches{[][]axisItem{a.items}, len(a.items)}
	}
	var out stretches
	add := func(from, to int) {
		if from < to {
			out.parts, out.count = append(out.parts, a.items[from:to]), out.count+to-from
		}
	}
	for _, p := range list {
		for bits := range p.Bits() {
			if a.lengths[familyOf(p)][bits] {
				at := a.byPrefix[netip.PrefixFrom(p.Addr(), bits).Masked()]
				add(int(at[0]), int(at[1]))
			}
		}
		last := memberOf(p, 0).last()
		from := sort.Search(len(a.items), func(i int) bool { return a.items[i].prefix.Compare(p) >= 0 })
		to := from + sort.Search(len(a.items)-from, func(i int) bool {
			at := a.items[from+i].prefix
			return familyOf(at) != familyOf(p) || keyOf(at.Addr()).compare(last) > 0
		})
		add(from, to)
	}
	return out
}
