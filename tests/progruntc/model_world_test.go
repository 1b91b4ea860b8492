package progruntc_test

import (
	"net/netip"
	"slices"

	"sluice/tc"
	"sluice/tests/flowmodel"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const (
	lanHost4   = "10.7.0.9" // behind the LAN's router
	modelFlows = 64         // conntrack.max_entries, so that the table of proven flows fills up
)

// Ids of the rules and defaults of modelStates.
const (
	modelSSH = 1 + iota
	modelBGP
	modelIn
	modelOwn
	modelWeb
	modelOut
	modelRest
	modelBad
	modelUnder
	modelDefaults // and those behind it
)

func rule(id uint32, action classify.Action, change ...func(*classify.Rule)) classify.Rule {
	r := classify.Rule{ID: id, Name: "r", Protocol: classify.AnyProtocol, Action: action}
	for _, f := range change {
		f(&r)
	}
	return r
}

// modelStates are the generations between which sequences switch: 1 has rules and SNAT, 2 takes rules back, 3 accepts by
// default, 4 is 1 without SNAT, 5 looks at single packets, 6 drops fragments and lets workloads talk, with SNAT of all sources, in 7 the
// box has another address. In 1 and 2 the box listens to 198.51.100.66 at a port of SNAT's, in 2 and 3 it may send there what it likes.
func modelStates() []tc.State {
	var states []tc.State
	for i := range 7 {
		states = append(states, modelState(i+1))
	}
	return states
}

func modelState(n int) tc.State {
	state := baseline()
	g := &state.Generation
	judged(&state)
	state.Interfaces = slices.DeleteFunc(state.Interfaces, func(i tc.Interface) bool { return i.Role == tc.RoleTunnel })
	g.Strict, g.FlowSlots, g.RuleSlots = nil, modelFlows, uint32(64+n) // so that no two are alike
	id := uint32(modelDefaults)
	policy := func(name string, fallback classify.Action, rules ...classify.Rule) classify.Policy {
		id++
		return classify.Policy{Name: name, Default: fallback, DefaultID: id, Rules: rules}
	}
	fallback := classify.Drop
	if n == 3 {
		fallback = classify.Accept
	}
	tcp := func(r *classify.Rule) { r.Protocol = 6 }
	web := func(r *classify.Rule) { r.Ports = ports(80, 80) }
	ssh := func(r *classify.Rule) { r.Protocol, r.Ports, r.To = 6, ports(22, 22), prefixes(self4, self6) }
	bgp := func(r *classify.Rule) { r.Protocol, r.Ports = 6, ports(179, 179) }
	syn := func(r *classify.Rule) { r.Protocol, r.TCPMask, r.TCPFlags = 6, 0x12, 0x02 }
	udp := func(r *classify.Rule) { r.Protocol = 17 }
	from := func(texts ...string) func(*classify.Rule) {
		return func(r *classify.Rule) { r.From = prefixes(texts...) }
	}
	g.Failsafe.Rules = []classify.Rule{rule(modelSSH, classify.Accept, ssh, from("198.51.100.0/24"))}
	g.System.Rules = []classify.Rule{rule(modelBGP, classify.Accept, bgp)}
	g.Ingress = policy("ingress", fallback, rule(modelBad, classify.Drop, from("198.51.100.66")), rule(modelIn, classify.Accept, web),
		rule(modelRest, classify.Accept, udp))
	g.Egress = policy("egress", fallback, rule(modelOwn, classify.Accept, udp), rule(modelWeb, classify.Accept, web))
	if n <= 2 {
		g.System.Rules = append(g.System.Rules, rule(modelUnder, classify.Accept, from("198.51.100.66"), func(r *classify.Rule) {
			r.Protocol, r.Ports, r.To = 17, ports(2001, 2001), prefixes(self4)
		}))
	}
	if n == 2 || n == 3 {
		g.System.Rules = append(g.System.Rules, rule(modelUnder, classify.Accept, from(self4), func(r *classify.Rule) {
			r.To = prefixes("198.51.100.66")
		}))
	}
	wl := func(name string, rules ...classify.Rule) classify.Policy {
		return policy("workload/"+name, fallback, rules...)
	}
	one, two := &g.Workloads[0], &g.Workloads[1]
	one.Ingress = wl("one/ingress", rule(modelWeb, classify.Accept, web, tcp), rule(modelRest, classify.Accept, udp, web))
	one.Egress = wl("one/egress", rule(modelOut, classify.Accept))
	two.Ingress = wl("two/ingress", rule(modelWeb, classify.Accept))
	two.Egress = wl("two/egress", rule(modelOut, classify.Accept, udp), rule(modelWeb, classify.Accept, web))
	switch n {
	case 2: // revoked
		g.Ingress.Rules, g.Egress.Rules = g.Ingress.Rules[:1], nil
		one.Egress.Rules, two.Ingress.Rules = nil, []classify.Rule{rule(modelBad, classify.Drop, udp), rule(modelWeb, classify.Accept)}
	case 5: // a rule about SYNs, whose verdict holds for no other packet
		one.Egress.Rules = []classify.Rule{rule(modelBad, classify.Drop, syn, from(w1v6)), rule(modelOut, classify.Accept)}
		two.Ingress.Rules = []classify.Rule{rule(modelWeb, classify.Accept, syn)}
		one.Ingress.Fragments = classify.FragAccept
	case 6:
		one.Egress.Fragments, g.Ingress.Fragments = classify.FragDrop, classify.FragDrop
		g.Matrix[tc.RoleWorkload][tc.RoleWorkload] = true
		g.Matrix[tc.RoleDownstream][tc.RoleWorkload], g.Matrix[tc.RoleWorkload][tc.RoleDownstream] = true, true
	}
	translate(&state, n)
	return state
}

// translate is snat: of the generations.
func translate(state *tc.State, n int) {
	if n == 4 {
		return
	}
	g := &state.Generation
	g.SNATAddresses = []tc.SNATAddress{{IPv4: addrs(self4)[0], IPv6: addrs(self6)[0]}}
	g.SNATPorts = classify.PortRange{First: 2000, Last: 2003}
	if n == 7 {
		renewed := netip.MustParseAddr("198.18.0.77")
		g.SNATAddresses[0].IPv4 = renewed
		g.Self = append(slices.DeleteFunc(slices.Clone(g.Self), func(a netip.Addr) bool { return a.String() == self4 }), renewed)
	}
	for i := range state.Interfaces {
		at := &state.Interfaces[i].SNAT
		switch state.Interfaces[i].Name {
		case "uplink":
			at.Address = 1
		case "wl1":
			at.IPv4, at.IPv6, at.All = true, true, n == 6
		case "wl2":
			at.IPv4 = true
		case "down":
			at.IPv4 = n != 3
		}
	}
}

// generationOf tells the model what a state says.
func generationOf(state tc.State) flowmodel.Generation {
	g := state.Generation
	out := flowmodel.Generation{Interfaces: map[string]flowmodel.Interface{}, Self: map[netip.Addr]bool{},
		Failsafe: g.Failsafe, System: g.System, Ingress: g.Ingress, Egress: g.Egress,
		FirstPort: g.SNATPorts.First, LastPort: g.SNATPorts.Last}
	for _, a := range g.Self {
		out.Self[a] = true
	}
	out.Matrix = g.Matrix
	for _, w := range g.Workloads {
		out.Workloads = append(out.Workloads, flowmodel.Workload{Interface: w.Interface, Addresses: w.Addresses, Ingress: w.Ingress, Egress: w.Egress})
	}
	for _, i := range state.Interfaces {
		at := flowmodel.Interface{Role: abi.Role(i.Role), Judge: i.Judge, SNAT: flowmodel.SNAT{V4: i.SNAT.IPv4, V6: i.SNAT.IPv6, All: i.SNAT.All}}
		if i.SNAT.Address != 0 {
			a := g.SNATAddresses[i.SNAT.Address-1]
			if i.Role == tc.RoleUplink {
				at.Own4, at.Own6 = a.IPv4, a.IPv6
			} else {
				at.SNAT.To4, at.SNAT.To6 = a.IPv4, a.IPv6
			}
		}
		out.Interfaces[i.Name] = at
	}
	return out
}

func modelWorld() *flowmodel.World {
	w := &flowmodel.World{MaxFlows: modelFlows, Fresh: abi.FreshLeast}
	for _, route := range []struct{ to, by string }{
		{"198.51.100.0/24", "uplink"}, {"2001:db8:7::/64", "uplink"}, {"192.0.2.0/24", "down"}, {"10.7.0.0/24", "down"},
	} {
		w.Routes = append(w.Routes, flowmodel.Route{Prefix: netip.MustParsePrefix(route.to), Interface: route.by})
	}
	for _, s := range modelStates() {
		w.Generations = append(w.Generations, generationOf(s))
	}
	return w
}

func modelCast() flowmodel.Cast {
	at := func(iface string, texts ...string) []flowmodel.Endpoint {
		var all []flowmodel.Endpoint
		for _, a := range addrs(texts...) {
			all = append(all, flowmodel.Endpoint{Interface: iface, Addr: a})
		}
		return all
	}
	return flowmodel.Cast{
		Endpoints: slices.Concat(at("uplink", client4, "198.51.100.66", client6), at("", self4, self6), at("wl1", w1v4, w1v6), at("wl2", w2v4),
			at("down", lanHost4, lan4)),
		Routers: slices.Concat(at("uplink", "198.51.100.1", "2001:db8:7::1"), at("", self4)),
		Clients: []uint16{4000, 4001, 2001}, Servers: []uint16{80, 53, 22, 4000},
	}
}
