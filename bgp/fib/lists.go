package fib

import (
	"net/netip"
	"slices"
)

// What belongs to a prefix stands in lists, not in maps: of a full table nearly every prefix has one path and one route, and a map of
// one entry takes ten times as much as a list.

// path is what a source said of a prefix.
type path struct {
	from    Source
	nextHop netip.Addr
}

// paths are those of a prefix, one of each source.
type paths []path

// of finds what a source said; -1: nothing.
func (p paths) of(from Source) int {
	return slices.IndexFunc(p, func(one path) bool { return one.from == from })
}

// nextHops returns the distinct next hops in order, so that the same paths give the same route.
func (p paths) nextHops() []netip.Addr {
	out := make([]netip.Addr, 0, len(p))
	for _, one := range p {
		out = append(out, one.nextHop)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// routes are those of a prefix, one at each place.
type routes []held

// index finds the one at a place; -1: there is none.
func (r routes) index(p place) int {
	return slices.IndexFunc(r, func(one held) bool { return one.place() == p })
}

// at is the one at a place; there is none: zero.
func (r routes) at(p place) held {
	if i := r.index(p); i >= 0 {
		return r[i]
	}
	return held{}
}

// sharing has a route take the lists of the one that was written before, where they are the same, as they mostly are. Nobody changes
// what is in them.
func (r held) sharing(last held) held {
	if slices.Equal(r.NextHops, last.NextHops) && slices.Equal(r.via, last.via) {
		r.NextHops, r.via = last.NextHops, last.via
	}
	return r
}
