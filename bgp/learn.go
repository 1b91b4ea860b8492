package bgp

import (
	"fmt"
	"slices"

	"sluice/plural"
)

// String is the line that a plan prints.
func (l Learn) String() string {
	out := "learn by " + plural.Of(len(l.Accept), "filter", "filters")
	if len(l.Reject) > 0 {
		out += fmt.Sprintf(", reject by %d", len(l.Reject))
	}
	out += fmt.Sprintf(", beside %s, ecmp %d, metric %d", plural.Of(len(l.Tunnels), "tunnel", "tunnels"), l.ECMP, l.Metric)
	if l.Table != 0 {
		out += fmt.Sprintf(", table %d", l.Table)
	}
	return out
}

func (l Learn) equal(m Learn) bool {
	return l.ECMP == m.ECMP && l.Metric == m.Metric && l.Table == m.Table && l.judges(m) && slices.EqualFunc(l.Tunnels, m.Tunnels, Tunnel.equal)
}

// judges says whether both believe the same routes, in the same way.
func (l Learn) judges(m Learn) bool {
	return slices.EqualFunc(l.Accept, m.Accept, Filter.equal) && slices.EqualFunc(l.Reject, m.Reject, Filter.equal)
}

func (f Filter) equal(g Filter) bool {
	return f.PrefixMatch == g.PrefixMatch && f.ASPath == g.ASPath && f.LocalPreference == g.LocalPreference && slices.Equal(f.From, g.From) &&
		(f.From == nil) == (g.From == nil) && slices.Equal(f.Communities, g.Communities) && slices.Equal(f.LargeCommunities, g.LargeCommunities)
}

func (t Tunnel) equal(u Tunnel) bool {
	return t.Device == u.Device && slices.Equal(t.Strict, u.Strict) && slices.Equal(t.Endpoints, u.Endpoints)
}
