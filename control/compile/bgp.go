package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/bgp"
	"sluice/bgp/bfd"
	"sluice/control/config"
)

func (c *compiler) bgp() bgp.State {
	b := c.cfg.BGP
	if b == nil {
		return bgp.State{}
	}
	s := bgp.State{ASN: b.ASN, RouterID: b.RouterID, Port: b.Listen, Paths: c.paths()}
	for i, n := range b.Neighbors {
		s.Neighbors = append(s.Neighbors, c.neighbor(i, n))
		if n.BFD.Interval != 0 {
			s.BFD = append(s.BFD, bfd.Config{
				Local: n.LocalAddress, Peer: n.Address, MinTx: n.BFD.Interval, MinRx: n.BFD.Interval, Multiplier: n.BFD.Multiplier,
			})
		}
	}
	slices.SortFunc(s.BFD, bfd.Config.Compare)
	slices.SortFunc(s.Neighbors, func(a, b bgp.Neighbor) int { return compareNames(a.Name, b.Name) })
	s.Learn = bgp.Learn{ECMP: b.Learn.ECMP, Metric: b.Learn.Metric, Table: b.Learn.Table, Accept: c.filters(b.Learn.Accept), Reject: c.filters(b.Learn.Reject)}
	for i := range c.cfg.Tunnels {
		s.Learn.Tunnels = append(s.Learn.Tunnels, c.learnBeside(&c.cfg.Tunnels[i]))
	}
	s.FlowSpec = c.flowSpec()
	slices.SortFunc(s.Learn.Tunnels, func(a, b bgp.Tunnel) int { return compareNames(a.Device, b.Device) })
	return s
}

// flowSpec says whose filters and blackholes count.
func (c *compiler) flowSpec() bgp.FlowSpec {
	f, b := c.cfg.BGP.FlowSpec, c.cfg.BGP.Blackhole
	out := bgp.FlowSpec{AcceptFrom: c.neighborsNamed(f.AcceptFrom), MaxRules: f.MaxRules, Keep: f.MaxAge}
	if len(b.AcceptFrom) > 0 {
		out.Blackholes = bgp.Blackholes{AcceptFrom: c.neighborsNamed(b.AcceptFrom), Max: b.MaxPrefixes, Keep: b.MaxAge, Within: sortedPrefixes(c.advertised())}
	}
	uplink := func(i config.Interface) bool { return i.Role == config.RoleUplink }
	if (f.MaxRules > 0 || len(b.AcceptFrom) > 0) && len(c.cfg.Tunnels) == 0 && !slices.ContainsFunc(c.cfg.Interfaces, uplink) {
		c.warn = append(c.warn, "bgp: filters and blackholes of neighbors are judged where uplinks and tunnels come in, and there is neither: they do nothing")
	}
	return out
}

// learnBeside is what a tunnel asks of learned routes. All endpoints of the file are kept, for any may be the next one in use.
func (c *compiler) learnBeside(t *config.Tunnel) bgp.Tunnel {
	out := bgp.Tunnel{Device: t.Name, Endpoints: c.found(t)}
	for _, p := range t.Peers {
		if t.Strict {
			out.Strict = append(out.Strict, p.Prefixes...)
		}
		for _, e := range p.Endpoints {
			if e.Addr.IsValid() {
				out.Endpoints = append(out.Endpoints, e.Addr)
			}
		}
	}
	out.Strict = sortedPrefixes(out.Strict)
	slices.SortFunc(out.Endpoints, netip.Addr.Compare)
	out.Endpoints = slices.Compact(out.Endpoints)
	return out
}

// neighbor fills in the next hops. NLRI of the session's own family take its local address; the other family's needs an
// address of that family, first on the interface or the tunnel that reaches the neighbor, then on any uplink.
func (c *compiler) neighbor(index int, n config.Neighbor) bgp.Neighbor {
	out := bgp.Neighbor{
		Name: n.Name, Address: n.Address, Port: n.Port, ASN: n.ASN, PasswordFile: n.PasswordFile,
		IPv4: slices.Contains(n.Families, config.IPv4Unicast), IPv6: slices.Contains(n.Families, config.IPv6Unicast),
		HoldTime: n.HoldTime, Keepalive: n.Keepalive, ConnectRetry: n.ConnectRetry, RestartTime: n.RestartTime,
		LocalAddress: n.LocalAddress, Passive: n.Passive, FirstAS: n.FirstAS, Multihop: n.Multihop, TTLSecurity: n.TTLSecurity,
		FallOver: c.cfg.BGP.FallOver && n.ASN != c.cfg.BGP.ASN && n.Multihop == 0 && n.TTLSecurity < 2,
		Shutdown: n.Shutdown, Reason: n.Reason, Limit: prefixLimit(n.MaxPrefixes),
		FlowSpec4: slices.Contains(n.Families, config.IPv4FlowSpec), FlowSpec6: slices.Contains(n.Families, config.IPv6FlowSpec),
	}
	if b := c.cfg.BGP.Blackhole; slices.Contains(b.AcceptFrom, n.Name) {
		copy(out.Blackhole[:], b.Communities)
	}
	if n.LocalAddress.IsValid() && !slices.Contains(c.self, n.LocalAddress) {
		c.warn = append(c.warn, fmt.Sprintf("neighbor %s: %s is no address of this box yet; the session waits for it", n.Name, n.LocalAddress))
	}
	switch {
	case n.Address.Is4() && out.IPv6:
		out.NextHop6 = c.nextHop(index, n, false)
		out.IPv6 = out.NextHop6.IsValid()
	case n.Address.Is6() && out.IPv4:
		out.NextHop4 = c.nextHop(index, n, true)
		out.IPv4 = out.NextHop4.IsValid()
	}
	return out
}

func prefixLimit(l config.PrefixLimit) bgp.PrefixLimit {
	return bgp.PrefixLimit{Max: l.Limit, WarnAt: l.WarnAt, Warn: l.Action == config.LimitWarn, RestartAfter: l.RestartAfter}
}

func (c *compiler) nextHop(index int, n config.Neighbor, ipv4 bool) netip.Addr {
	var near, any netip.Addr
	for _, t := range c.cfg.Tunnels { // what it announces by the address of an uplink would come back past the tunnel
		if candidate, reaches := firstOf(t.Addresses, ipv4, n.Address); reaches && !near.IsValid() && !c.absent[t.Name] {
			near = candidate
		}
	}
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleUplink || c.absent[i.Name] {
			continue
		}
		candidate, reaches := firstOf(c.addresses(i), ipv4, n.Address)
		if reaches && !near.IsValid() {
			near = candidate
		}
		if !any.IsValid() {
			any = candidate
		}
	}
	if near.IsValid() {
		return near
	}
	if !any.IsValid() {
		family, other := "ipv6-unicast", "IPv6"
		if ipv4 {
			family, other = "ipv4-unicast", "IPv4"
		}
		c.failNew(n.Pos, fmt.Sprintf("bgp.neighbors[%d].families", index), family+" over this session needs an "+other+" next hop",
			"give an uplink an "+other+" address, or leave the family out")
	}
	return any
}

// firstOf is the first address of a family in a list, and whether one of the list's networks holds the neighbor.
func firstOf(list []netip.Prefix, ipv4 bool, neighbor netip.Addr) (first netip.Addr, reaches bool) {
	for _, a := range list {
		if a.Addr().Is4() == ipv4 && !a.Addr().IsLinkLocalUnicast() && !first.IsValid() {
			first = a.Addr()
		}
		reaches = reaches || a.Contains(neighbor)
	}
	return first, reaches
}

// addresses are those of an interface, the file's first.
func (c *compiler) addresses(i config.Interface) []netip.Prefix {
	out := slices.Clone(i.Addresses)
	if link := c.link(i.Name); link != nil {
		out = append(out, link.Addresses...)
	}
	return out
}

// filters are those of the file, with the neighbors' addresses.
func (c *compiler) filters(list []config.Filter) []bgp.Filter {
	var out []bgp.Filter
	for _, f := range list {
		out = append(out, bgp.Filter{
			PrefixMatch: bgp.PrefixMatch(f.PrefixMatch), From: c.neighborsNamed(f.From), ASPath: f.ASPath, Communities: f.Communities,
			LargeCommunities: largeCommunities(f.LargeCommunities), LocalPreference: f.LocalPreference,
		})
	}
	return out
}

// neighborsNamed are their addresses, sorted; nil for nil.
func (c *compiler) neighborsNamed(names []string) []netip.Addr {
	var out []netip.Addr
	for _, n := range c.neighbors() {
		if slices.Contains(names, n.Name) {
			out = append(out, n.Address)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func largeCommunities(list []config.LargeCommunity) []bgp.LargeCommunity {
	var out []bgp.LargeCommunity
	for _, l := range list {
		out = append(out, bgp.LargeCommunity(l))
	}
	return out
}
