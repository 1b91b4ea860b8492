package bgp

import (
	"fmt"

	"github.com/osrg/gobgp/v4/api"
)

// imports writes the import policy. Our own paths pass first: GoBGP asks it of them, too, and drops what it rejects.
func (b *policyBuilder) imports(l Learn, neighbors []Neighbor) {
	b.learn = append(b.learn, &api.Statement{
		Name:       "our own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	})
	b.firstAS(neighbors)
	for i, f := range l.Reject {
		b.filter(fmt.Sprintf("reject %d", i), f, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
	}
	for i, f := range l.Accept {
		last := f
		last.Communities, last.LocalPreference = append([]uint32{GracefulShutdown}, f.Communities...), LeastPreference
		b.filter(fmt.Sprintf("accept %d for the last", i), last, last.accepts())
		b.filter(fmt.Sprintf("accept %d", i), f, f.accepts())
	}
}

func (f Filter) accepts() *api.Actions {
	a := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	if f.LocalPreference != 0 {
		a.LocalPref = &api.LocalPrefAction{Value: f.LocalPreference}
	}
	return a
}

func (b *policyBuilder) filter(name string, f Filter, actions *api.Actions) {
	c := &api.Conditions{NeighborSet: b.neighbors(name, f.From)}
	if f.Prefix.IsValid() {
		b.sets = append(b.sets, &api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name,
			Prefixes: []*api.Prefix{{IpPrefix: f.Prefix.String(), MaskLengthMin: uint32(f.GE), MaskLengthMax: uint32(f.LE)}},
		})
		c.PrefixSet = &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
	}
	if f.ASPath != "" {
		c.AsPathSet = b.set(api.DefinedType_DEFINED_TYPE_AS_PATH, name, api.MatchSet_TYPE_ANY, f.ASPath)
	}
	if len(f.Communities) > 0 {
		c.CommunitySet = b.set(api.DefinedType_DEFINED_TYPE_COMMUNITY, name, api.MatchSet_TYPE_ALL, communityTexts(f.Communities)...)
	}
	if len(f.LargeCommunities) > 0 {
		c.LargeCommunitySet = b.set(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, name, api.MatchSet_TYPE_ALL, texts(f.LargeCommunities)...)
	}
	b.learn = append(b.learn, &api.Statement{Name: name, Conditions: c, Actions: actions})
}
