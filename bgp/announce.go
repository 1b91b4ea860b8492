package bgp

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// offers are paths by their prefix, in the order of the list.
type offers struct {
	order []netip.Prefix
	of    map[netip.Prefix][]Path
}

func byPrefix(paths []Path) offers {
	o := offers{of: make(map[netip.Prefix][]Path, len(paths))}
	for _, p := range paths {
		if o.of[p.Prefix] == nil {
			o.order = append(o.order, p.Prefix)
		}
		o.of[p.Prefix] = append(o.of[p.Prefix], p)
	}
	return o
}

func (o offers) all() iter.Seq2[netip.Prefix, []Path] {
	return func(yield func(netip.Prefix, []Path) bool) {
		for _, prefix := range o.order {
			if !yield(prefix, o.of[prefix]) {
				return
			}
		}
	}
}

// normalPaths sorts by prefix; the order of a prefix's own paths says which counts.
func normalPaths(paths []Path) []Path {
	if len(paths) == 0 {
		return nil
	}
	paths = slices.Clone(paths)
	for i := range paths {
		p := &paths[i]
		p.Prefix = p.Prefix.Masked()
		p.To = sorted(p.To, netip.Addr.Compare)
		p.Communities = sorted(p.Communities, cmp.Compare[uint32])
		p.LargeCommunities = sorted(p.LargeCommunities, LargeCommunity.compare)
	}
	slices.SortStableFunc(paths, func(a, b Path) int { return a.Prefix.Compare(b.Prefix) })
	return paths
}

func (l LargeCommunity) compare(m LargeCommunity) int { return slices.Compare(l[:], m[:]) }

// hears says whether a neighbor is among those that a path is for.
func (p Path) hears(neighbor netip.Addr) bool { return p.To == nil || slices.Contains(p.To, neighbor) }

func (p Path) equal(q Path) bool { return p.Prefix == q.Prefix && p.way() == q.way() }

// way is all of a path but its prefix, as one word: paths of one way share their statements in the export policy.
func (p Path) way() string {
	var b strings.Builder
	for _, c := range p.Communities {
		fmt.Fprintf(&b, " %d:%d", c>>16, c&0xffff)
	}
	for _, l := range p.LargeCommunities {
		fmt.Fprintf(&b, " %s", l)
	}
	if p.LocalPreference != 0 {
		fmt.Fprintf(&b, " local preference %d", p.LocalPreference)
	}
	if p.MED != nil {
		fmt.Fprintf(&b, " med %d", *p.MED)
	}
	if p.Prepend != 0 {
		fmt.Fprintf(&b, " prepended %d", p.Prepend)
	}
	if p.NextHop.IsValid() {
		fmt.Fprintf(&b, " next hop %s", p.NextHop)
	}
	if p.To != nil {
		b.WriteString(" to")
		for _, a := range p.To {
			fmt.Fprintf(&b, " %s", a)
		}
	}
	return b.String()
}

// describe is the ways of all paths of a prefix.
func describe(paths []Path) string {
	ways := make([]string, len(paths))
	for i, p := range paths {
		ways[i] = p.way()
	}
	return strings.Join(ways, ";")
}

// check refuses what would be wrong on the wire.
func (p Path) check() error {
	if p.NextHop.IsValid() && p.NextHop.Is4() != p.Prefix.Addr().Is4() {
		return fmt.Errorf("%s: next hop %s is of the other family", p.Prefix, p.NextHop)
	}
	return nil
}
