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

// at finds the one at a place; -1: there is none.
func (r routes) at(p place) int {
	return slices.IndexFunc(r, func(one held) bool { return one.place() == p })
}

// sharing has a route take the lists of the one that was written before, where they are the same, as they mostly are. Nobody changes
// what is in them.
func (r held) sharing(last held) held {
	if slices.Equal(r.hops, last.hops) && slices.Equal(r.via, last.via) {
		r.hops, r.via, r.NextHops = last.hops, last.via, last.NextHops
	}
	return r
}
