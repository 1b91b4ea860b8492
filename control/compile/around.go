package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/path"
	"sluice/xdp/abi"
)

// tunnelRules lead packets to the routes that cannot stand in main: those around an endpoint of their own tunnel, and the
// ways of probes.
func (c *compiler) tunnelRules() []host.Rule {
	var rules []host.Rule
	probed := c.probedAside()
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		families := map[bool]bool{}
		for _, r := range c.routesInto(t) {
			if six := r.Prefix.Addr().Is6(); r.Table == path.ProbeTable && !families[six] {
				families[six] = true
				rules = append(rules, host.Rule{Priority: ruleProbe, IPv6: six, OutLink: t.Name, Table: path.ProbeTable})
			}
		}
		rules = append(rules, answersToProbes(t, probed)...)
	}
	for _, ipv6 := range []bool{false, true} {
		shortest, any := c.shortestAside(ipv6)
		if !any {
			continue
		}
		rules = append(rules, host.Rule{Priority: ruleUnderlay, IPv6: ipv6, Mark: abi.MarkUnderlay, Mask: abi.MarkUnderlay, Table: mainTable})
		for _, a := range c.endpointsAside(ipv6) {
			rules = append(rules, host.Rule{Priority: ruleUnderlay, IPv6: ipv6, To: netip.PrefixFrom(a, a.BitLen()), Table: mainTable})
		}
		rules = append(rules,
			// A route of main that is as long as the tunnel's, such as a default route, comes behind it.
			host.Rule{Priority: ruleLonger, IPv6: ipv6, Table: mainTable, Shortest: shortest + 1},
			// Encrypted packets that main has no route for go nowhere, never into their own tunnel.
			host.Rule{Priority: ruleTunnels, IPv6: ipv6, Mask: abi.MarkUnderlay, Table: path.Table})
	}
	return rules
}

// answersToProbes let the answers of probes that are not on link pass the reverse path check while the tunnel's other routes are
// withdrawn: it asks for the way back from the address that was probed without a device. IPv6 has no such check. Every packet that the
// machine routes is compared with every rule (a thousand of them took 20 µs), and path.ProbeTable has nothing but what is probed: so a rule is for
// as many addresses as it can be that no other tunnel probes.
func answersToProbes(t *config.Tunnel, probed []netip.Addr) []host.Rule {
	own := routedProbes(t)
	if len(own) == 0 {
		return nil
	}
	var rules []host.Rule
	for _, a := range t.Addresses {
		if !a.Addr().Is4() {
			continue
		}
		for _, to := range aroundAll(own, probed) {
			r := host.Rule{Priority: ruleProbe, From: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), To: to, Table: path.ProbeTable}
			if !slices.Contains(rules, r) {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// routedProbes are the IPv4 addresses that a tunnel's probes reach by path.ProbeTable. Sorted, distinct.
func routedProbes(t *config.Tunnel) []netip.Addr {
	var out []netip.Addr
	for i := range t.Peers {
		if a := t.Peers[i].Probe; a.Is4() && !t.OnLink(a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// probedAside are the routedProbes of all tunnels. Sorted, distinct.
func (c *compiler) probedAside() []netip.Addr {
	var out []netip.Addr
	for i := range c.cfg.Tunnels {
		out = append(out, routedProbes(&c.cfg.Tunnels[i])...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// aroundAll are the fewest prefixes that hold some of all addresses, but none of the others. Both are sorted; the zero Prefix holds any.
func aroundAll(some, all []netip.Addr) []netip.Prefix {
	first, last := some[0], some[len(some)-1]
	bits := first.BitLen()
	around := func() netip.Prefix { p, _ := first.Prefix(bits); return p }
	for !around().Contains(last) {
		bits--
	}
	within, _ := slices.BinarySearchFunc(all, around().Addr(), netip.Addr.Compare)
	switch end := within + len(some); {
	case end < len(all) && around().Contains(all[end]): // an address more than ours
		half := slices.IndexFunc(some, func(a netip.Addr) bool { p, _ := a.Prefix(bits + 1); return !p.Contains(first) })
		return append(aroundAll(some[:half], all), aroundAll(some[half:], all)...)
	case bits == 0:
		return []netip.Prefix{{}}
	}
	return []netip.Prefix{around()}
}

// shortestAside is the length of the shortest prefix of a family that is set aside.
func (c *compiler) shortestAside(ipv6 bool) (bits int, any bool) {
	for p := range c.tunnels.aside {
		if p.Addr().Is6() == ipv6 && (!any || p.Bits() < bits) {
			bits, any = p.Bits(), true
		}
	}
	return bits, any
}

// uplinkCheck is the rp_filter that uplinks need for IPv4; "": any. The way back to who sends encrypted packets leads through the
// tunnel, as far as the strict check (1) of sources knows: it does not know their mark. The loose one (2) wants any way back, and
// a blackhole is none: peers that roam, whose address is not known before they are heard, would never be heard.
func (c *compiler) uplinkCheck() string {
	if slices.ContainsFunc(c.blackholes().Blackholes, func(b path.Blackhole) bool { return b.Table == path.Table && b.Prefix.Addr().Is4() }) {
		return "0"
	}
	if _, any := c.shortestAside(false); any {
		return "2"
	}
	return ""
}

// endpointsAside are the endpoints in use that a lookup without a mark must not look for in path.Table: those of IPsec, because
// charon's own packets have none, nor has the kernel's search for the MTU; and all that a blackhole would answer for there, because
// the reverse path check of what they send would drop it, and with it all that could bring the tunnel back. Other endpoints of
// WireGuard stay, so that what is sent to them goes through the tunnel. Sorted, distinct.
func (c *compiler) endpointsAside(ipv6 bool) []netip.Addr {
	stopped := map[netip.Prefix]bool{} // and false where there is a route
	for _, b := range c.blackholes().Blackholes {
		stopped[b.Prefix] = b.Table == path.Table
	}
	for i := range c.cfg.Tunnels {
		for _, r := range c.routesInto(&c.cfg.Tunnels[i]) {
			if r.Table == path.Table {
				stopped[r.Prefix] = false
			}
		}
	}
	var out []netip.Addr
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for n := range t.Peers {
			a := c.peerNow(t, &t.Peers[n]).Endpoint.Addr()
			_, inside := covered(a, c.tunnels.aside)
			if a.Is6() == ipv6 && inside && (t.IPsec != nil || stops(a, stopped)) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// doubled are the tunnels that carry what another one carries, too. The strict check of sources (rp_filter 1) would drop what
// comes by the one that is not the best way back: the answers to its probes, where both are probed at one address, and all that a
// peer sends which has noticed a loss earlier than this end. The loose one is enough: a tunnel itself takes nothing from a peer but
// what is its. Sorted.
func (c *compiler) doubled() []string {
	first := map[netip.Prefix]string{}
	var out []string
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for n := range t.Peers {
			for _, prefix := range carried(t, &t.Peers[n]) {
				if other, taken := first[prefix]; !prefix.Addr().Is4() {
					continue
				} else if !taken {
					first[prefix] = t.Name
				} else if other != t.Name {
					out = append(out, t.Name, other)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// tellOfProbes warns of probes that the peer may have to answer another way than they came.
func (c *compiler) tellOfProbes() {
	probed := map[netip.Addr]string{}
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		own := func(six bool) bool {
			return slices.ContainsFunc(t.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() == six })
		}
		for n := range t.Peers {
			probe := t.Peers[n].Probe
			other, twice := probed[probe]
			if probe.IsValid() && !twice {
				probed[probe] = t.Name
			}
			if twice && other != t.Name && !own(probe.Is6()) {
				c.warn = append(c.warn, fmt.Sprintf("tunnel %s: %s is probed through tunnel %s, too, and this one has no address of its own: the peer answers by its best way, and drops the probe where rp_filter is 1; write addresses, or another probe", t.Name, probe, other))
			}
		}
	}
}

// stops says what the longest of the prefixes that hold an address does.
func stops(a netip.Addr, by map[netip.Prefix]bool) bool {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if stop, there := by[p]; err == nil && there {
			return stop
		}
	}
	return false
}
