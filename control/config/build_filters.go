package config

import (
	"slices"
	"time"
)

const (
	defaultFlowSpecRules    flowSpecCount = 1000
	defaultBlackholes       flowSpecCount = 100
	defaultFlowSpecMaxAge                 = time.Hour // an attack that takes the session along must not take its remedy
	maxFlowSpecMaxAge                     = 24 * time.Hour
	blackholeCommunity      uint32        = 0xffff029a // RFC 7999
	maxBlackholeCommunities               = 4
)

// flowSpec says which filters of neighbors count. It holds without being written, once a neighbor carries the family.
func (p *peers) flowSpec(r *rawFlowSpec, out *BGP) FlowSpec {
	carries := func(n Neighbor) bool {
		return slices.Contains(n.Families, IPv4FlowSpec) || slices.Contains(n.Families, IPv6FlowSpec)
	}
	if !slices.ContainsFunc(out.Neighbors, carries) {
		if r.written() && p.sure {
			p.add(r.at, bad("no neighbor carries FlowSpec").or("write families: [ipv4-unicast, ipv4-flowspec] at a neighbor, or remove the key"))
		}
		return FlowSpec{}
	}
	f := FlowSpec{AcceptFrom: p.find(r.AcceptFrom, bad("the list is empty, and so says nothing").or("remove the key")), MaxRules: int(r.MaxRules.or(defaultFlowSpecRules)), MaxAge: p.maxAge(r.MaxAge)}
	p.each(r.AcceptFrom, out, carries, "neighbor %s carries no FlowSpec family", "add ipv4-flowspec or ipv6-flowspec to its families")
	targets := map[string]at{}
	for i := range r.Redirect.items {
		to := &r.Redirect.items[i]
		p.unique(targets, string(to.Target.v), to.Target.ok, to.Target.at, "target")
		if to.Socket.ok && !p.hasSocket(string(to.Socket.v)) {
			p.add(to.Socket.at, p.noSocket(string(to.Socket.v)))
		}
		f.Redirects = append(f.Redirects, FlowSpecRedirect{Target: string(to.Target.v), Socket: string(to.Socket.v)})
	}
	return f
}

// blackhole says whose unicast routes may ask for a destination to be dropped.
func (p *peers) blackhole(r *rawBlackhole, out *BGP) Blackhole {
	if !r.written() {
		return Blackhole{}
	}
	b := Blackhole{AcceptFrom: p.find(r.AcceptFrom, bad("the list is empty, so nobody may ask").or("remove blackhole")), Communities: communities(r.Communities),
		MaxPrefixes: int(r.MaxPrefixes.or(defaultBlackholes)), MaxAge: p.maxAge(r.MaxAge)}
	switch {
	case r.Communities.empty():
		p.add(r.Communities.at, bad("no community would ask for a blackhole").or(`remove the key for "65535:666", or the entry`))
	case len(b.Communities) > maxBlackholeCommunities:
		p.add(r.Communities.at, bad("%d communities are too many", len(b.Communities)).or("write at most %d", maxBlackholeCommunities))
	case !r.Communities.written():
		b.Communities = []uint32{blackholeCommunity}
	}
	if len(out.Advertise) == 0 && p.sure {
		p.add(r.at, bad("nothing is advertised, and only what lies inside of that may be blackholed").or("write advertise: as well, or remove the key"))
	}
	unicast := func(n Neighbor) bool {
		return slices.Contains(n.Families, IPv4Unicast) || slices.Contains(n.Families, IPv6Unicast)
	}
	p.each(r.AcceptFrom, out, unicast, "neighbor %s carries no unicast family", "add ipv4-unicast or ipv6-unicast to its families")
	return b
}

// each reports neighbors of a list that what it says cannot be about.
func (p *peers) each(l list[val[name]], out *BGP, fits func(Neighbor) bool, problem, remedy string) {
	for _, n := range l.items {
		for _, named := range p.named[string(n.v)] {
			i := slices.IndexFunc(out.Neighbors, func(n Neighbor) bool { return n.Name == named })
			if n.ok && i >= 0 && p.sure && !fits(out.Neighbors[i]) {
				p.add(n.at, bad(problem, named).or("%s", remedy))
			}
		}
	}
}

func (p *peers) maxAge(v val[duration]) time.Duration {
	if !v.ok {
		return defaultFlowSpecMaxAge
	}
	age := time.Duration(v.v)
	if age < time.Second || !wholeSeconds(age, maxFlowSpecMaxAge) {
		p.add(v.at, bad("max age %s is not allowed", age).or("write 1s to 24h in whole seconds"))
	}
	return age
}
