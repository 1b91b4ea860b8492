package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/control/host"
)

// The link group that holds every interface behind which strangers are: a packet that enters by one of them must not
// leave by another. The kernel's routing rules say so by suppressing routes that lead into the group.
const outsideGroup = 18800

// Priorities of our routing rules, all between local (0) and main (32766).
const (
	ruleSuppress = 18800 // look in main, but not for routes that lead outside
	ruleProhibit = 18801 // and nothing else
	ruleProbe    = 18809 // probes: of sockets bound to a tunnel's device, and the reverse path check of their answers
	ruleUnderlay = 18810 // encrypted packets, and what is sent to endpoints where it matters, look in main
	ruleLonger   = 18811 // as does the rest, for routes that are longer than those
	ruleTunnels  = 18812 // which stand in a table of their own: they are around an endpoint
)

const mainTable = 254

// host is what links, addresses, routes and sysctls should be.
func (c *compiler) host() host.State {
	var s host.State
	for _, i := range c.cfg.Interfaces {
		if c.absent[i.Name] || c.link(i.Name) == nil && !i.Made() {
			continue // a workload's comes and goes
		}
		link := host.Link{Name: i.Name, Up: true, MTU: c.mtu(i)}
		if c.outside(i.Role) {
			link.Group = outsideGroup
		}
		s.Links = append(s.Links, link)
		for _, a := range i.Addresses {
			s.Addresses = append(s.Addresses, host.Address{Link: i.Name, Prefix: a, Keep: c.keeps(i)})
		}
	}
	c.devices(&s)
	for _, t := range c.cfg.Tunnels {
		if !c.absent[t.Name] {
			s.Links = append(s.Links, host.Link{Name: t.Name, Up: true, Group: outsideGroup})
		}
	}
	for _, w := range c.present {
		c.workloadHost(&s, w)
	}
	for _, r := range c.cfg.Routes {
		via := c.near(r)
		if len(via) == 0 {
			continue
		}
		s.Routes = append(s.Routes, host.Route{
			Prefix: r.Prefix, Type: host.Unicast, Via: via, Metric: r.Metric, Table: mainTable, Keep: c.keepsRoute(r),
		})
	}
	s.Rules = append(c.kernelMatrix(), c.tunnelRules()...)
	slices.SortFunc(s.Rules, compareRules)
	s.Sysctls = c.sysctls()
	s.Inner = c.innerSysctls()
	s.Tags = c.tags()
	s.Qdiscs = c.qdiscs()
	s.Tunings = c.tunings()

	slices.SortFunc(s.Links, func(a, b host.Link) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(s.Addresses, func(a, b host.Address) int {
		if n := compareNames(a.Link, b.Link); n != 0 {
			return n
		}
		return comparePrefixes(a.Prefix, b.Prefix)
	})
	slices.SortFunc(s.Routes, func(a, b host.Route) int {
		if n := comparePrefixes(a.Prefix, b.Prefix); n != 0 {
			return n
		}
		return a.Metric - b.Metric
	})
	return s
}

// workloadHost is the host side of a workload's veth: the gateway addresses, and the routes to the workload.
func (c *compiler) workloadHost(s *host.State, w config.Workload) {
	if !slices.ContainsFunc(s.Links, func(l host.Link) bool { return l.Name == w.Interface }) { // else interfaces: names it too
		s.Links = append(s.Links, host.Link{Name: w.Interface, Up: true})
	}
	var has4, has6 bool
	for _, a := range w.Addresses {
		has4, has6 = has4 || a.Is4(), has6 || a.Is6()
		s.Routes = append(s.Routes, host.Route{
			Prefix: netip.PrefixFrom(a, a.BitLen()), Type: host.Unicast, Link: w.Interface, Table: mainTable,
		})
	}
	if has4 {
		s.Addresses = append(s.Addresses, host.Address{Link: w.Interface, Prefix: netip.PrefixFrom(GatewayIPv4, 32)})
	}
	if has6 {
		s.Addresses = append(s.Addresses, host.Address{Link: w.Interface, Prefix: netip.PrefixFrom(GatewayIPv6, 64)})
	}
}

// keeps says whether an interface's addresses stay on `sluice down`: those of the management interfaces, and where
// there is none, those of the uplinks, because that is how the operator reaches the box.
func (c *compiler) keeps(i config.Interface) bool {
	dedicated := slices.ContainsFunc(c.cfg.Interfaces, func(i config.Interface) bool { return i.Role == config.RoleManagement })
	if dedicated {
		return i.Role == config.RoleManagement
	}
	return i.Role == config.RoleUplink
}

// keepsRoute keeps the routes whose next hop is reached by an address that stays.
func (c *compiler) keepsRoute(r config.Route) bool {
	for _, i := range c.cfg.Interfaces {
		for _, a := range c.addresses(i) { // those from DHCP too: they stay anyway
			if c.keeps(i) && slices.ContainsFunc(r.Via, a.Contains) {
				return true
			}
		}
	}
	return false
}

func (c *compiler) outside(r config.Role) bool {
	return r == config.RoleUplink || r == config.RoleManagement || r == config.RoleTunnel
}

// kernelMatrix is the coarse forwarding matrix in the kernel's own routing rules: what enters from outside does not
// leave outside, though every slot be empty. A forward: entry from one outside role to another lifts it for both, because
// routing rules know no flows and the replies come the other way; the finer matrix of the tcx programs remains.
func (c *compiler) kernelMatrix() []host.Rule {
	lifted := map[config.Role]bool{}
	for _, f := range c.cfg.Forward {
		if c.outside(f.From) && c.outside(f.To) {
			lifted[f.From], lifted[f.To] = true, true
		}
	}
	var rules []host.Rule
	guard := func(link string) {
		for _, ipv6 := range []bool{false, true} {
			rules = append(rules,
				host.Rule{Priority: ruleSuppress, IPv6: ipv6, InLink: link, Table: mainTable, SuppressGroup: outsideGroup},
				host.Rule{Priority: ruleProhibit, IPv6: ipv6, InLink: link, Prohibit: true})
		}
	}
	for _, i := range c.cfg.Interfaces {
		if c.outside(i.Role) && !lifted[i.Role] {
			guard(i.Name)
		}
	}
	if !lifted[config.RoleTunnel] {
		for _, t := range c.cfg.Tunnels {
			guard(t.Name)
		}
	}
	return rules
}

func compareRules(a, b host.Rule) int {
	if a.Priority != b.Priority {
		return a.Priority - b.Priority
	}
	if a.IPv6 != b.IPv6 {
		if b.IPv6 {
			return -1
		}
		return 1
	}
	return cmp.Or(compareNames(a.InLink, b.InLink), compareNames(a.OutLink, b.OutLink), a.To.Compare(b.To), a.From.Compare(b.From))
}
