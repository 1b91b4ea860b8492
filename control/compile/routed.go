package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
)

// checkRouted tells what tunnels take along that was perhaps not meant to go into them.
func (c *compiler) checkRouted() {
	near, named := c.nearby(), c.namedPeers()
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				if p.Routes {
					c.tellOfRouted(t, prefix, near, named)
				}
			}
		}
	}
	c.checkAside()
	c.checkNames()
	c.tellOfProbes()
}

func (c *compiler) tellOfRouted(t *config.Tunnel, whole netip.Prefix, near []netip.Prefix, named []string) {
	if whole.Bits() == 0 {
		c.note("tunnel %s: %s leads into it past any default route of the main table; longer routes there come first", t.Name, whole)
		if len(c.snat.of) > 0 {
			c.note("tunnel %s: sources are translated where they leave by an uplink, not in the tunnel: the peer needs ways back to them", t.Name)
		}
	}
	keeps, own := "a route of their own keeps them on the uplink", "give these servers a route of their own"
	if t.Strict {
		keeps, own = "strict lets nothing past it, whatever route they have", "strict lets nothing past it: write an address among the endpoints"
	}
	warn := func(what string) {
		c.warn = append(c.warn, fmt.Sprintf("tunnel %s: what the box sends to %s goes into the tunnel with the rest of %s; %s", t.Name, what, whole, keeps))
	}
	far := func(p netip.Prefix) bool { return within(p, []netip.Prefix{whole}) && !within(p, near) }
	halfOrMore := whole.Bits() <= 1 // 0.0.0.0/1 and 128.0.0.0/1 are another way to write a default route
	for _, m := range c.cfg.Management {
		from := c.resolve(m.From)
		if len(m.From) == 0 && halfOrMore {
			warn("whom management " + m.Name + " lets in")
		}
		if i := slices.IndexFunc(from, far); halfOrMore && i >= 0 && !t.Strict { // a site's prefix is meant to hold them. One of a long list is enough; checkStrict tells of the strict
			warn("management source " + textOf(from[i]))
		}
	}
	for _, n := range c.neighbors() {
		if far(netip.PrefixFrom(n.Address, n.Address.BitLen())) && !t.Strict {
			warn("BGP neighbor " + n.Name)
		}
	}
	for _, server := range c.cfg.Node.DNS {
		if len(named) > 0 && far(netip.PrefixFrom(server, server.BitLen())) {
			warn("DNS server " + server.String())
		}
	}
	if len(c.cfg.Node.DNS) == 0 && halfOrMore {
		for _, peer := range named {
			c.warn = append(c.warn, fmt.Sprintf("tunnel %s: the names of %s are asked of DNS servers that may be behind %s: %s", t.Name, peer, whole, own))
		}
	}
}

// namedPeers are the peers that have names among their endpoints.
func (c *compiler) namedPeers() []string {
	var out []string
	for _, t := range c.cfg.Tunnels {
		for _, p := range t.Peers {
			if slices.ContainsFunc(p.Endpoints, func(e config.Endpoint) bool { return !e.Addr.IsValid() }) {
				out = append(out, "peer "+p.Name+" of tunnel "+t.Name)
			}
		}
	}
	return out
}

// checkAside warns of prefixes in path.Table beside shorter ones: one rule, for the shortest, says which routes of main come first.
func (c *compiler) checkAside() {
	var all []netip.Prefix
	for p := range c.tunnels.aside {
		all = append(all, p)
	}
	for _, p := range sortedPrefixes(all) {
		shortest, _ := c.shortestAside(p.Addr().Is6())
		n := slices.IndexFunc(all, func(q netip.Prefix) bool { return q.Addr().Is6() == p.Addr().Is6() && q.Bits() == shortest })
		if p.Bits() > shortest {
			c.warn = append(c.warn, fmt.Sprintf("tunnels: prefix %s, which holds an endpoint, stands beside the shorter %s: routes of the main table that are longer than /%d come before both; write prefixes of one length", p, all[n], shortest))
		}
	}
}

// checkNames refuses DNS servers of the file that are all behind strict prefixes of peers that are known by names alone: nobody could
// ever be asked. What was accepted before goes on, as far as it goes.
func (c *compiler) checkNames() {
	for _, server := range c.cfg.Node.DNS {
		if !c.waitsForNames(server, nil) {
			return
		}
	}
	if len(c.cfg.Node.DNS) == 0 {
		return
	}
	server := c.cfg.Node.DNS[0] // one is enough
	c.waitsForNames(server, func(at, n int, prefix netip.Prefix) {
		msg := fmt.Sprintf("DNS server %s is in strict prefix %s, and the endpoints are names: nobody can be asked for them", server, prefix)
		c.failNew(c.cfg.Tunnels[at].Peers[n].Pos, fmt.Sprintf("tunnels[%d].peers[%d].endpoints", at, n), msg,
			"write an address among them, or in node.dns a server outside the prefix")
	})
}

// waitsForNames says whether what is sent to a server needs a peer of a strict tunnel that has names alone, and tells which.
func (c *compiler) waitsForNames(server netip.Addr, tell func(tunnel, peer int, prefix netip.Prefix)) bool {
	if server.IsLoopback() || slices.Contains(c.self, server) || c.onWire(server) {
		return false
	}
	at, n, waits := 0, 0, false
	var longest netip.Prefix
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for k, p := range t.Peers {
			known := slices.ContainsFunc(p.Endpoints, func(e config.Endpoint) bool { return e.Addr.IsValid() }) || len(p.Endpoints) == 0
			for _, prefix := range p.Prefixes {
				better := !longest.IsValid() || prefix.Bits() > longest.Bits() || prefix == longest && known
				if prefix.Contains(server) && (t.Strict || p.Routes) && better {
					at, n, longest, waits = i, k, prefix, t.Strict && !known
				}
			}
		}
	}
	if waits && tell != nil {
		tell(at, n, longest)
	}
	return waits
}

// onWire says whether an address is on a network that strict leaves alone, because an interface has it and it is the longer.
func (c *compiler) onWire(a netip.Addr) bool {
	var strict []netip.Prefix
	for _, b := range c.blackholes().Blackholes {
		strict = append(strict, b.Prefix)
	}
	for _, o := range c.onLink(strict) {
		if o.Prefix.Contains(a) {
			return true
		}
	}
	return false
}

// nearby are the networks of interfaces and of tunnels' devices, and what the file has routes to.
func (c *compiler) nearby() []netip.Prefix {
	var out []netip.Prefix
	for _, i := range c.cfg.Interfaces {
		for _, a := range c.addresses(i) {
			out = append(out, a.Masked())
		}
	}
	for _, t := range c.cfg.Tunnels {
		for _, a := range t.Addresses {
			out = append(out, a.Masked())
		}
	}
	for _, r := range c.cfg.Routes {
		if r.Prefix.Bits() > 0 {
			out = append(out, r.Prefix)
		}
	}
	return out
}
