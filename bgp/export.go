package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// ways are the different lists of paths that our prefixes have, each known by a tag. A locally originated path carries
// its tag as local preference, by which the export policy knows it and which never leaves so: there are few ways and
// many prefixes, and a prefix that goes another way needs no new policy. Tags are above what a filter can give to a learned
// path, so our own stays the best of its prefix.
type ways struct {
	of   map[string]*way
	last uint32
}

type way struct {
	tag   uint32
	paths []Path // of one of its prefixes
}

const (
	firstTag          = 1 << 31
	defaultPreference = 100 // RFC 4271 leaves it open; it is everybody's
)

func newWays() *ways { return &ways{of: map[string]*way{}, last: firstTag} }

// tag is that of a list of paths; known says that it was there before.
func (w *ways) tag(paths []Path) (tag uint32, known bool) {
	key := describe(paths)
	if w.of[key] == nil {
		w.last++
		w.of[key] = &way{w.last, paths}
		return w.last, false
	}
	return w.of[key].tag, true
}

// keep forgets the ways that no list has a prefix of.
func (w *ways) keep(lists ...[]Path) {
	used := map[string]bool{}
	for _, list := range lists {
		for _, paths := range byPrefix(list).all() {
			used[describe(paths)] = true
		}
	}
	for key := range w.of {
		if !used[key] {
			delete(w.of, key)
		}
	}
}

func (w *ways) sorted() []*way {
	var out []*way
	for _, one := range w.of {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b *way) int { return cmp.Compare(a.tag, b.tag) })
	return out
}

// exports writes the export policy: the next hops of neighbors first, then the ways, which accept.
func (b *policyBuilder) exports(s State, w *ways) {
	for _, n := range s.Neighbors {
		b.nextHops(n)
	}
	for _, one := range w.sorted() {
		for i, p := range one.paths {
			b.way(s, one.tag, i, p)
		}
	}
}

func (b *policyBuilder) nextHops(n Neighbor) {
	name := "next hops of " + n.Address.String()
	for _, hop := range []struct {
		addr   netip.Addr
		family bgp.Family
	}{{n.NextHop4, bgp.RF_IPv4_UC}, {n.NextHop6, bgp.RF_IPv6_UC}} {
		if !hop.addr.IsValid() {
			continue
		}
		b.export = append(b.export, &api.Statement{
			Name: fmt.Sprintf("%s, %s", name, hop.family),
			Conditions: &api.Conditions{
				NeighborSet: b.neighbors(fmt.Sprintf("%s, %s", name, hop.family), []netip.Addr{n.Address}),
				AfiSafiIn:   []*api.Family{apiFamily(hop.family)},
				RouteType:   api.Conditions_ROUTE_TYPE_LOCAL,
			},
			Actions: &api.Actions{Nexthop: &api.NexthopAction{Address: hop.addr.String()}}, // and on to the next statement
		})
	}
}

// way accepts what goes one way. Our AS is prepended towards others alone: who has it too would take the path for a loop.
func (b *policyBuilder) way(s State, tag uint32, index int, p Path) {
	name := fmt.Sprintf("way %d.%d", tag-firstTag, index)
	others := []netip.Addr{}
	for _, n := range s.Neighbors {
		if n.ASN != s.ASN && p.hears(n.Address) {
			others = append(others, n.Address)
		}
	}
	if p.Prepend > 0 && len(others) > 0 {
		actions := p.actions()
		actions.AsPrepend = &api.AsPrependAction{Asn: s.ASN, Repeat: uint32(p.Prepend)}
		b.accept(name+" prepended", tag, others, actions)
	}
	b.accept(name, tag, p.To, p.actions())
}

func (b *policyBuilder) accept(name string, tag uint32, to []netip.Addr, actions *api.Actions) {
	b.export = append(b.export, &api.Statement{
		Name: name,
		Conditions: &api.Conditions{
			LocalPrefEq: &api.LocalPrefEq{Value: tag}, RouteType: api.Conditions_ROUTE_TYPE_LOCAL, NeighborSet: b.neighbors(name, to),
		},
		Actions: actions,
	})
}

// actions are what every neighbor of the path sees. The local preference hides the tag in sessions with our own AS; in
// others GoBGP takes it off.
func (p Path) actions() *api.Actions {
	a := &api.Actions{
		RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		LocalPref:   &api.LocalPrefAction{Value: cmp.Or(p.LocalPreference, defaultPreference)},
	}
	if len(p.Communities) > 0 {
		a.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: communityTexts(p.Communities)}
	}
	if len(p.LargeCommunities) > 0 {
		a.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: texts(p.LargeCommunities)}
	}
	if p.MED != nil {
		a.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(*p.MED)}
	}
	if p.NextHop.IsValid() {
		a.Nexthop = &api.NexthopAction{Address: p.NextHop.String()}
	}
	return a
}

// communityTexts prints RFC 1997 communities as ASN:value.
func communityTexts(list []uint32) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = fmt.Sprintf("%d:%d", c>>16, c&0xffff)
	}
	return out
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
