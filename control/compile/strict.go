package compile

import (
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/tc"
)

// checkStrict warns of a strict tunnel that would cut off what the box cannot do without: the guard drops every plaintext packet to a
// strict prefix, answers to management and BGP included. By an interface of role management alone answers to management leave.
func (c *compiler) checkStrict() {
	for _, t := range c.cfg.Tunnels {
		if !t.Strict {
			continue
		}
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				c.warnStrict(t.Name, prefix)
			}
		}
	}
}

func (c *compiler) warnStrict(tunnel string, strict netip.Prefix) {
	warn := func(what string) {
		c.warn = append(c.warn, "tunnel "+tunnel+": strict prefix "+strict.String()+" covers "+what+
			": what the box sends there by an uplink is dropped")
	}
	for _, m := range c.cfg.Management {
		for _, from := range c.resolve(m.From) {
			if from.Overlaps(strict) {
				warn("management source " + from.String())
			}
		}
	}
	for _, i := range c.cfg.Interfaces {
		if slices.Contains(c.wires(i), strict) {
			c.warn = append(c.warn, "tunnel "+tunnel+": strict prefix "+strict.String()+" is the network of "+i.Name+
				", too: what goes there by that interface is dropped; a longer prefix would be exempt")
		}
	}
	for _, n := range c.neighbors() {
		if strict.Contains(n.Address) {
			warn("BGP neighbor " + n.Name)
		}
	}
}

// onLink are the networks inside strict prefixes, and longer, that are on the wires of LANs and management interfaces. There is one
// entry for each: of two interfaces the file's first. Sorted.
func (c *compiler) onLink(strict []netip.Prefix) []tc.OnLink {
	var out []tc.OnLink
	for _, i := range c.cfg.Interfaces {
		if c.absent[i.Name] {
			continue
		}
		for _, p := range c.wires(i) {
			inside := slices.ContainsFunc(strict, func(s netip.Prefix) bool { return s.Bits() < p.Bits() && s.Contains(p.Addr()) })
			if inside && !slices.ContainsFunc(out, func(o tc.OnLink) bool { return o.Prefix == p }) {
				out = append(out, tc.OnLink{Interface: i.Name, Prefix: p})
			}
		}
	}
	slices.SortFunc(out, func(a, b tc.OnLink) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return out
}

// wires are the networks that a LAN or a management interface leads to: those of its addresses, and those that routes of the file give
// to routers on them. What is learned is not among them.
func (c *compiler) wires(i config.Interface) []netip.Prefix {
	if i.Role != config.RoleDownstream && i.Role != config.RoleManagement {
		return nil
	}
	var out []netip.Prefix
	for _, a := range c.addresses(i) {
		if !a.Addr().IsLinkLocalUnicast() { // of every link, and never strict
			out = append(out, a.Masked())
		}
	}
	near := slices.Clone(out)
	for _, r := range c.cfg.Routes {
		if slices.ContainsFunc(r.Via, func(via netip.Addr) bool {
			return slices.ContainsFunc(near, func(p netip.Prefix) bool { return p.Contains(via) })
		}) {
			out = append(out, r.Prefix.Masked())
		}
	}
	return sortedPrefixes(out)
}

func (c *compiler) neighbors() []config.Neighbor {
	if c.cfg.BGP == nil {
		return nil
	}
	return c.cfg.BGP.Neighbors
}
