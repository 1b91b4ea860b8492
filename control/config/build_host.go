package config

import (
	"fmt"
	"net/netip"
	"slices"
)

func (b *builder) interfaces(raw []rawInterface) {
	seen, on := map[string]at{}, b.stack(raw)
	for i := range raw {
		r := &raw[i]
		b.unique(seen, string(r.Name.v), r.Name.ok, r.Name.at, "interface")
		b.interfaceRole(r, on)
		b.device(r, on)
		out := Interface{Name: string(r.Name.v), Role: r.Role.v, MTU: int(r.MTU.v), Addresses: prefixes(r.Addresses),
			XDP: XDPNone, Parent: string(r.Parent.v), VLAN: int(r.VLAN.v), LACP: r.LACP.v, Bandwidth: uint64(r.Bandwidth.Egress.v), SNAT: r.SNAT.v.SNAT,
			NIC: b.nic(r), Pos: r.pos}
		for _, m := range good(r.Members) {
			out.Members = append(out.Members, string(m))
		}
		if r.Role.v == RoleUplink {
			out.XDP = r.XDP.Mode.or(defaultXDP(r))
			out.FailOpen = r.XDP.Fail.or("open") == "open"
		}
		b.addresses(r.Addresses)
		b.mtuForIPv6(r.MTU.at, int(r.MTU.v), r.MTU.ok, out.Addresses)
		b.cfg.Interfaces = append(b.cfg.Interfaces, out)
	}
}

func (b *builder) interfaceRole(r *rawInterface, on stack) {
	link := string(r.Name.v)
	claim, claimed := b.links[link]
	claimed = claimed && r.Name.ok
	workload := claimed && slices.ContainsFunc(b.cfg.Workloads, func(w Workload) bool { return w.Interface == link })
	switch {
	case claimed && !workload:
		b.add(r.Name.at, bad("%s is the device of a tunnel", link).or("write its addresses and mtu at %s", place(claim)))
	case workload && r.Role.v != RoleWorkload && (r.Role.ok || !r.Role.written()):
		b.add(r.at, bad("%s is the interface of a workload", link).or("write role: workload, or remove this entry (see %s)", place(claim)))
	case link == "lo" && r.Role.written():
		b.add(r.Role.at, bad("lo has no role").or("remove it"))
	case !r.Role.written() && !r.Addresses.written() && !on.carries(link):
		b.add(r.at, bad("the interface has neither a role nor addresses").or("write its role"))
	}
	b.snatRole(r)
	if r.XDP.written() && r.Role.v != RoleUplink && (r.Role.ok || !r.Role.written()) {
		b.add(r.XDP.at, bad("XDP runs on uplinks only").or("remove xdp, or write role: uplink"))
	}
	if r.Bandwidth.written() && r.Role.v != RoleDownstream && (r.Role.ok || !r.Role.written()) {
		b.add(r.Bandwidth.at, bad("only the bandwidth of workloads and downstreams is bounded").or("remove it; a workload's stands at workloads:"))
	}
}

// addresses reports an address that one interface has twice, and one that several have as theirs of a network: the kernel
// would have two ways there. A link may borrow another's as a single address.
func (b *builder) addresses(raw list[val[addressPrefix]]) {
	seen := map[netip.Addr]at{}
	for _, a := range raw.items {
		if !a.ok {
			continue
		}
		addr := a.v.Addr()
		inNetwork := !a.v.IsSingleIP() && !(addr.Is6() && addr.IsLinkLocalUnicast())
		if first, twice := seen[addr]; twice {
			b.add(a.at, bad("duplicate address %s", addr).or("the first stands at %s", place(first)))
		} else if first, twice := b.networked[addr]; twice && inNetwork {
			b.add(a.at, bad("duplicate address %s", addr).or("the first stands at %s; to borrow that one, write %s", place(first), netip.PrefixFrom(addr, addr.BitLen())))
		}
		seen[addr] = a.at
		if inNetwork {
			b.networked[addr] = a.at
		}
	}
}

// mtuForIPv6 reports an MTU at which the kernel switches IPv6 off (RFC 8200 section 5).
func (b *builder) mtuForIPv6(a at, bytes int, ok bool, addresses []netip.Prefix) {
	six := slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if ok && six && bytes != 0 && bytes < minMTU6 {
		b.add(a, bad("MTU %d is too small for IPv6", bytes).or("write %d or more, or remove the IPv6 addresses", minMTU6))
	}
}

func (b *builder) routes(raw []rawRoute) {
	seen := map[string]at{}
	for i := range raw {
		r := &raw[i]
		b.unique(seen, fmt.Sprintf("%s metric %d", r.Prefix.v.Prefix, r.Metric.v), r.Prefix.ok, r.Prefix.at, "route")
		if r.Via.empty() {
			b.add(r.Via.at, bad("the route has no next hop").or("write at least one address"))
		}
		out := Route{Prefix: r.Prefix.v.Prefix, Metric: int(r.Metric.v), Pos: r.pos}
		hops := map[string]at{}
		for _, v := range r.Via.items {
			b.unique(hops, v.v.String(), v.ok, v.at, "next hop")
			b.nextHop(r, v)
			out.Via = append(out.Via, v.v.Addr)
		}
		b.cfg.Routes = append(b.cfg.Routes, out)
	}
}

func (b *builder) nextHop(r *rawRoute, v val[unicast]) {
	switch {
	case !v.ok || !r.Prefix.ok:
	case v.v.Is4() != r.Prefix.v.Addr().Is4():
		b.add(v.at, bad("next hop %s and prefix %s are of different families", v.v, r.Prefix.v))
	case v.v.IsLinkLocalUnicast() && v.v.Is6():
		b.add(v.at, bad("next hop %s is link-local, and a route cannot name its interface", v.v).or("use a global address of the router"))
	}
}

func (b *builder) sysctls(raw []rawSysctl) {
	seen := map[string]at{}
	for _, r := range raw {
		b.unique(seen, string(r.Key.v), r.Key.ok, r.Key.at, "sysctl")
		b.cfg.Sysctls = append(b.cfg.Sysctls, Sysctl{Key: string(r.Key.v), Value: string(r.Value.v), Pos: r.pos})
	}
}

func (b *builder) management(raw []rawManagementRule) {
	seen := map[string]at{}
	for i := range raw {
		r := &raw[i]
		label := string(r.Name.v)
		if !r.Name.written() {
			label = fmt.Sprintf("management-%d", i+1)
		}
		b.unique(seen, label, r.Name.ok || !r.Name.written(), r.at, "rule")
		// Without ports the rule would open the box's every port, by an omission.
		if r.Protocol.v.hasPorts() && !r.Ports.written() {
			b.add(r.at, bad("the rule opens every port").or("write ports: [22], or whatever you manage the box by"))
		}
		b.portsOf(r.Protocol, r.Ports)
		from := b.refs(r.From)
		b.protocolFamily(r.at, r.Protocol, from.families)
		b.cfg.Management = append(b.cfg.Management, ManagementRule{Name: label, From: from.refs, Protocol: r.Protocol.v.Protocol,
			Ports: portRanges(r.Ports), Pos: r.pos})
	}
}

func (b *builder) forward(raw []rawForward) {
	seen := map[string]at{}
	for i := range raw {
		r := &raw[i]
		both := r.From.ok && r.To.ok
		b.unique(seen, string(r.From.v+" to "+r.To.v), both, r.at, "forwarding")
		transit := r.From.v == RoleUplink && r.To.v == RoleUplink
		switch {
		case !both:
		case transit && !bool(r.Transit.v) && (r.Transit.ok || !r.Transit.written()):
			b.add(r.at, bad("uplink to uplink makes this box a transit router").or("write transit: true if you mean it"))
		case !transit && r.Transit.ok:
			b.add(r.Transit.at, bad("transit is for uplink to uplink").or("remove it"))
		}
		b.cfg.Forward = append(b.cfg.Forward, Forward{From: r.From.v, To: r.To.v, Transit: bool(r.Transit.v), Pos: r.pos})
	}
}
