package bgp

import (
	"fmt"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const exportPolicy = "export"

// exportPolicies is the whole policy set for these neighbors: what is locally originated goes out, with the next hop
// that the neighbor asks for; the assignment's default rejects the rest, which is all that was learned.
func exportPolicies(neighbors []Neighbor) *api.SetPoliciesRequest {
	req := &api.SetPoliciesRequest{}
	policy := &api.Policy{Name: exportPolicy}
	for _, n := range neighbors {
		set := "neighbor " + n.Address.String()
		host := netip.PrefixFrom(n.Address.WithZone(""), n.Address.BitLen())
		named := false
		for _, hop := range []struct {
			addr   netip.Addr
			family bgp.Family
		}{{n.NextHop4, bgp.RF_IPv4_UC}, {n.NextHop6, bgp.RF_IPv6_UC}} {
			if !hop.addr.IsValid() {
				continue
			}
			named = true
			policy.Statements = append(policy.Statements, &api.Statement{
				Name: fmt.Sprintf("%s next hop %s", set, hop.family),
				Conditions: &api.Conditions{
					NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set},
					AfiSafiIn:   []*api.Family{apiFamily(hop.family)},
					RouteType:   api.Conditions_ROUTE_TYPE_LOCAL,
				},
				Actions: &api.Actions{
					RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
					Nexthop:     &api.NexthopAction{Address: hop.addr.String()},
				},
			})
		}
		if named {
			req.DefinedSets = append(req.DefinedSets, &api.DefinedSet{
				DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: set, List: []string{host.String()},
			})
		}
	}
	policy.Statements = append(policy.Statements, &api.Statement{
		Name:       "local",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	})
	req.Policies = []*api.Policy{policy}
	return req
}

// exportAssignment binds the policy to the global table. SetPolicies keeps it by name, so once is enough.
func exportAssignment() *api.SetPolicyAssignmentRequest {
	return &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, Policies: []*api.Policy{{Name: exportPolicy}},
		DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
	}}
}
