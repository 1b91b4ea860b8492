package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
)

// LooksAtHops are the next hops and neighbors of a file that no network of the file holds: whether they are on a link of the
// machine all the same is for the facts to say.
func LooksAtHops(cfg *config.Config) []netip.Addr {
	var out []netip.Addr
	look := func(a netip.Addr) {
		held := func(p netip.Prefix) bool { return p.Contains(a) }
		in := func(i config.Interface) bool { return slices.ContainsFunc(i.Addresses, held) }
		through := func(t config.Tunnel) bool { return slices.ContainsFunc(t.Addresses, held) }
		if !slices.ContainsFunc(cfg.Interfaces, in) && !slices.ContainsFunc(cfg.Tunnels, through) {
			out = append(out, a)
		}
	}
	for _, r := range cfg.Routes {
		for _, via := range r.Via {
			look(via)
		}
	}
	if cfg.BGP != nil {
		for _, n := range cfg.BGP.Neighbors {
			look(n.Address)
		}
	}
	return out
}

// links are the networks that the box reaches without a router.
type links struct {
	of []netip.Prefix
	// own are those of interfaces.
	own []netip.Prefix
	// open says, of IPv4 and of IPv6, that an interface has no network of the family yet, and may get one that nobody knows.
	open [2]bool
}

func (c *compiler) links() links {
	var l links
	for _, i := range c.cfg.Interfaces {
		if i.Name == "lo" || c.workloadOf(i.Name) != nil {
			continue
		}
		var has [2]bool
		for _, a := range c.addresses(i) {
			l.own = append(l.own, a.Masked())
			has[familyIndex(a.Addr())] = has[familyIndex(a.Addr())] || !a.IsSingleIP() && !a.Addr().IsLinkLocalUnicast()
		}
		if i.Role != "" || len(i.Addresses) > 0 { // else it only carries others
			l.open[0], l.open[1] = l.open[0] || !has[0], l.open[1] || !has[1]
		}
	}
	l.of = slices.Clone(l.own)
	for _, there := range c.facts.Host.Links {
		if there.Name != "lo" {
			l.of = append(l.of, there.Addresses...)
		}
	}
	for _, t := range c.cfg.Tunnels {
		l.of = append(l.of, t.Addresses...)
		for _, p := range t.Peers {
			if p.Routes {
				l.of = append(l.of, p.Prefixes...)
			}
		}
	}
	for _, w := range c.cfg.Workloads {
		l.of = append(l.of, hostPrefixes(w.Addresses)...)
	}
	return l
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// hold says whether an address is on a link, as far as anybody can know: with an interface whose network comes from elsewhere, any
// may be.
func (l links) hold(a netip.Addr) bool {
	return l.open[familyIndex(a)] || slices.ContainsFunc(l.of, func(p netip.Prefix) bool { return p.Contains(a) })
}

// broadcast is the network of an interface whose broadcast address a is. One of two addresses has none (RFC 3021).
func (l links) broadcast(a netip.Addr) netip.Prefix {
	for _, p := range l.own {
		if a.Is4() && p.Bits() < 31 && p.Contains(a) && !p.Contains(a.Next()) {
			return p
		}
	}
	return netip.Prefix{}
}

// checkHops refuses next hops that the kernel would: on no link. It warns of neighbors whose session would never come up for it.
func (c *compiler) checkHops() {
	if len(c.cfg.Routes) == 0 && len(c.neighbors()) == 0 {
		return
	}
	l := c.links()
	for n, r := range c.cfg.Routes {
		for i, via := range r.Via {
			if all := l.broadcast(via); all.IsValid() {
				c.failNew(r.Pos, fmt.Sprintf("routes[%d].via[%d]", n, i), fmt.Sprintf("next hop %s is the broadcast address of %s", via, all), "write the router's own address")
				continue
			}
			if c.facts.Host.OnLink[via] || l.hold(via) {
				continue
			}
			c.failNew(r.Pos, fmt.Sprintf("routes[%d].via[%d]", n, i), fmt.Sprintf("next hop %s is on no link of this box", via),
				"correct it, or give an interface an address in its network")
		}
	}
	for _, r := range c.cfg.Routes {
		if r.Prefix.Bits() > 0 {
			l.of = append(l.of, r.Prefix)
		}
	}
	for _, n := range c.neighbors() {
		// TTL 1 reaches the next router and no further; what TTL security above one hop lets through comes from further away.
		direct := n.ASN != c.cfg.BGP.ASN && n.Multihop == 0 && n.TTLSecurity < 2
		if direct && !c.facts.Host.OnLink[n.Address] && !l.hold(n.Address) {
			c.warn = append(c.warn, fmt.Sprintf("neighbor %s: %s is in no network of this box, and a session with another AS crosses no router unless multihop says how many: it will not come up",
				n.Name, n.Address))
		}
	}
}
