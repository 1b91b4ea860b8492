package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/crypto/path"
)

// miss is about an interface that is not there, or cannot be made. It is an error of a file that somebody is about to apply; where the
// file was accepted before, the box does without the interface until its arrival compiles again: a NIC that died must not take the
// others with it.
func (c *compiler) miss(n int, key, why, fix string) {
	i := c.cfg.Interfaces[n]
	if !c.accepted {
		c.fail(i.Pos, fmt.Sprintf("interfaces[%d].%s", n, key), why, fix)
		return
	}
	if !c.absent[i.Name] {
		c.absent[i.Name] = true
		c.missing = append(c.missing, i.Name+": "+why)
	}
}

// findOrphans leaves out the VLAN children of interfaces that are absent.
func (c *compiler) findOrphans() {
	for n, i := range c.cfg.Interfaces {
		if c.absent[i.Parent] {
			c.miss(n, "parent", i.Parent+" is missing", "")
		}
	}
}

// findForeign keeps somebody else's link from being taken for the tunnel of its name: what leaves there counts as encrypted. That the
// tunnel cannot be made is told by the step that is to make it.
func (c *compiler) findForeign() {
	for _, t := range c.cfg.Tunnels {
		if link := c.link(t.Name); link != nil && link.Alias != path.Alias(t.Name) {
			c.absent[t.Name] = true
		}
	}
}

// near are the next hops of a route without those that interfaces lead to which are absent, and no other: the kernel refuses the whole
// route for one that it cannot reach.
func (c *compiler) near(r config.Route) []netip.Addr {
	leads := func(hop netip.Addr, absent bool) bool {
		return slices.ContainsFunc(c.cfg.Interfaces, func(i config.Interface) bool {
			return c.absent[i.Name] == absent && slices.ContainsFunc(c.addresses(i), func(p netip.Prefix) bool { return p.Contains(hop) })
		})
	}
	return slices.DeleteFunc(slices.Clone(r.Via), func(hop netip.Addr) bool { return leads(hop, true) && !leads(hop, false) })
}
