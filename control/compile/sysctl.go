package compile

import (
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/control/host"
)

// sysctls are those of the file, and the forwarding that its roles imply: the FIB lookup of the tcx programs and the
// kernel's own path both need it. IPv6 has one more switch for the whole namespace.
func (c *compiler) sysctls() []host.Sysctl {
	want := map[string]string{}
	sides := c.forwardingSides()
	forwards6 := slices.ContainsFunc(sides, func(s side) bool { return s.ipv6 })
	for _, s := range sides {
		want["net.ipv4.conf."+s.link+".forwarding"] = "1"
		if forwards6 {
			want["net.ipv6.conf."+s.link+".forwarding"] = "1"
		}
	}
	if forwards6 {
		want["net.ipv6.conf.all.forwarding"] = "1"
	}
	if check := c.uplinkCheck(); check != "" {
		for _, i := range c.cfg.Interfaces {
			if i.Role == config.RoleUplink && !c.absent[i.Name] {
				want["net.ipv4.conf."+i.Name+".rp_filter"] = check
			}
		}
		if check == "0" {
			c.note("uplinks do not check the sources of packets (rp_filter 0): a strict tunnel's blackhole would stop peers that roam; the kernel takes the larger of this and of net.ipv4.conf.all.rp_filter, which has to be 0, too")
		}
	}
	for _, name := range c.doubled() {
		if !c.absent[name] {
			want["net.ipv4.conf."+name+".rp_filter"] = "2"
		}
	}
	if c.cookies.own {
		for _, key := range cookieSysctls {
			want[key] = cookieValue
		}
	}
	for _, s := range c.cfg.Sysctls {
		want[s.Key] = s.Value // the file has the last word
	}
	out := make([]host.Sysctl, 0, len(want))
	for key, value := range want {
		out = append(out, host.Sysctl{Key: key, Value: value})
	}
	slices.SortFunc(out, func(a, b host.Sysctl) int { return compareNames(a.Key, b.Key) })
	return out
}

// side is an interface that takes part in forwarding. IPv6 says that something behind it, not the box alone, has it.
type side struct {
	link string
	role config.Role
	ipv6 bool
}

// forwardingSides are empty where the box forwards nothing: without a workload, a downstream or a forward: entry.
// Uplinks have IPv6 for the box's own sake, so that alone does not make it an IPv6 router, which would stop listening to
// router advertisements (RFC 4861 section 6.2.1); a forward: entry between outside roles has nothing else to go by.
func (c *compiler) forwardingSides() []side {
	has6 := func(p netip.Prefix) bool { return p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() }
	forwarded := map[config.Role]bool{config.RoleUplink: true, config.RoleDownstream: true, config.RoleWorkload: true, config.RoleTunnel: true}
	inside := func(r config.Role) bool { return r == config.RoleDownstream || r == config.RoleWorkload }
	named := map[config.Role]bool{} // by forward:
	for _, f := range c.cfg.Forward {
		named[f.From], named[f.To] = true, true
		forwarded[f.From], forwarded[f.To] = true, true
	}
	var sides []side
	for _, i := range c.cfg.Interfaces {
		if forwarded[i.Role] && c.workloadOf(i.Name) == nil {
			counts := inside(i.Role) || named[i.Role]
			sides = append(sides, side{i.Name, i.Role, counts && slices.ContainsFunc(i.Addresses, has6)})
		}
	}
	for _, t := range c.cfg.Tunnels {
		carries6 := slices.ContainsFunc(t.Peers, func(p config.Peer) bool { return slices.ContainsFunc(p.Prefixes, has6) })
		sides = append(sides, side{t.Name, config.RoleTunnel, named[config.RoleTunnel] && carries6})
	}
	for _, w := range c.present {
		sides = append(sides, side{w.Interface, config.RoleWorkload, slices.ContainsFunc(w.Addresses, netip.Addr.Is6)})
	}
	if len(c.cfg.Forward) == 0 && !slices.ContainsFunc(sides, func(s side) bool { return inside(s.role) }) {
		return nil
	}
	return slices.DeleteFunc(sides, func(s side) bool { return c.absent[s.link] })
}
