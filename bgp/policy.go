package bgp

import (
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
)

// What GoBGP is told to judge by. Its policies are replaced as a whole, by one call: assignments know them by name.
const (
	exportPolicy = "export"
	importPolicy = "import"
)

// policies is the whole policy set of a state. The default of both assignments rejects: what no statement takes is not
// announced, which is all that was learned, and not believed.
func policies(s State, w *ways) *api.SetPoliciesRequest {
	b := &policyBuilder{}
	b.exports(s, w)
	b.imports(s.Learn, s.Neighbors)
	return &api.SetPoliciesRequest{DefinedSets: b.sets, Policies: []*api.Policy{
		{Name: exportPolicy, Statements: b.export}, {Name: importPolicy, Statements: b.learn},
	}}
}

// assignments bind the policies to the global table, once.
func assignments() []*api.SetPolicyAssignmentRequest {
	bind := func(d api.PolicyDirection, name string) *api.SetPolicyAssignmentRequest {
		return &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Direction: d, Policies: []*api.Policy{{Name: name}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}}
	}
	return []*api.SetPolicyAssignmentRequest{
		bind(api.PolicyDirection_POLICY_DIRECTION_EXPORT, exportPolicy), bind(api.PolicyDirection_POLICY_DIRECTION_IMPORT, importPolicy),
	}
}

// policyBuilder gathers statements, and the sets that they name.
type policyBuilder struct {
	sets          []*api.DefinedSet
	export, learn []*api.Statement
}

// set defines a set and returns a condition on it.
func (b *policyBuilder) set(t api.DefinedType, name string, match api.MatchSet_Type, list ...string) *api.MatchSet {
	b.sets = append(b.sets, &api.DefinedSet{DefinedType: t, Name: name, List: list})
	return &api.MatchSet{Type: match, Name: name}
}

// neighbors is nil for nil: any. GoBGP takes an empty set for any neighbor as well, so who means none must not ask.
func (b *policyBuilder) neighbors(name string, list []netip.Addr) *api.MatchSet {
	if list == nil {
		return nil
	}
	hosts := make([]string, len(list))
	for i, a := range list {
		hosts[i] = netip.PrefixFrom(a.WithZone(""), a.BitLen()).String()
	}
	return b.set(api.DefinedType_DEFINED_TYPE_NEIGHBOR, name, api.MatchSet_TYPE_ANY, hosts...)
}
