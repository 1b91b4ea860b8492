package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp/classify"
)

// translation is what the tc subsystem needs for SNAT.
type translation struct {
	of        map[string]tc.SNAT // by interface
	addresses []tc.SNATAddress
	ports     classify.PortRange // zero: nothing is translated
	announced []netip.Prefix     // private ones, where some are left as they are: sorted, distinct
}

// What auto translates: nobody beyond the operator's own network has a route to these. RFC 1918, RFC 6598, RFC 3927, RFC 4193;
// snat.h has them again.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

func isPrivate(a netip.Addr) bool {
	return slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a) })
}

// sender is who has its sources translated: a workload, or the hosts of a downstream.
type sender struct {
	link    string
	what    string // "workload web-1"
	snat    config.SNAT
	sources []netip.Prefix // masked
	many    bool           // there may be sources beyond these
	away    bool           // its interface is not there, and nothing is translated yet
	at      place
}

// senders are those with snat, workloads first.
func (c *compiler) senders() []sender {
	var out []sender
	for n, w := range c.cfg.Workloads {
		if w.SNAT != (config.SNAT{}) {
			away := !slices.ContainsFunc(c.present, func(p config.Workload) bool { return p.Name == w.Name })
			out = append(out, sender{w.Interface, "workload " + w.Name, w.SNAT, hostPrefixes(w.Addresses), false, away, place{w.Pos, c.workloadPath(n) + ".snat"}})
		}
	}
	for n, i := range c.cfg.Interfaces {
		if i.SNAT == (config.SNAT{}) {
			continue
		}
		s := sender{i.Name, "downstream " + i.Name, i.SNAT, nil, true, c.absent[i.Name], place{i.Pos, fmt.Sprintf("interfaces[%d].snat", n)}}
		for _, a := range c.addresses(i) {
			if !a.Addr().IsLinkLocalUnicast() || a.Addr().Is4() {
				s.sources = append(s.sources, a.Masked())
			}
		}
		s.sources = sortedPrefixes(s.sources) // the file's are mostly there already
		out = append(out, s)
	}
	return out
}

// translation is worked out from the senders: without one it is empty, and the programs look for nothing.
func (c *compiler) translation() translation {
	senders := slices.DeleteFunc(c.senders(), func(s sender) bool {
		known := s.snat.Auto || c.has(s.snat.Address)
		if !known {
			c.fail(s.at.pos, s.at.path, s.snat.Address.String()+" is not an address of this box", "write auto, or give the address to an interface, such as lo")
		}
		return !known || s.away
	})
	if len(senders) == 0 {
		return translation{}
	}
	t := translation{of: map[string]tc.SNAT{}, ports: c.snatPorts()}
	announced := c.announced()
	var need4, need6 []string // senders that need an uplink's own address of the family
	for _, s := range senders {
		// To the kernel's path what a port of a VRF receives came in by the VRF (skb_iif): nobody could tell whose it is.
		if link := c.link(s.link); link != nil && link.VRF != "" {
			c.fail(s.at.pos, s.at.path, fmt.Sprintf("%s belongs to the VRF %s, whose packets cannot be told apart where they leave", s.link, link.VRF),
				"take the interface out of the VRF, or write snat: none")
			continue
		}
		if s.snat.Auto {
			v4, v6 := s.translates(true, announced), s.translates(false, announced)
			if v4 {
				need4 = append(need4, s.what)
			}
			if v6 {
				need6 = append(need6, s.what)
			}
			t.of[s.link] = tc.SNAT{IPv4: v4 || s.many, IPv6: v6 || s.many}
			c.tellOfIdle(s, announced)
			continue
		}
		to := s.snat.Address
		t.of[s.link] = tc.SNAT{IPv4: to.Is4(), IPv6: to.Is6(), All: true, Address: t.index(addressOf(to))}
	}
	t.announced = announced
	for _, i := range c.cfg.Interfaces {
		if i.Role == config.RoleUplink && !c.absent[i.Name] {
			t.of[i.Name] = tc.SNAT{Address: t.index(c.ownAddress(i, need4, need6))}
		}
	}
	return t
}

// has says whether an address is the box's own, and not one of the gateways that every box has.
func (c *compiler) has(a netip.Addr) bool {
	return slices.Contains(c.self, a) && a != GatewayIPv4 && a != GatewayIPv6
}

func addressOf(a netip.Addr) tc.SNATAddress {
	if a.Is4() {
		return tc.SNATAddress{IPv4: a}
	}
	return tc.SNATAddress{IPv6: a}
}

// index is 1 + where the address stands, which it is added to once.
func (t *translation) index(a tc.SNATAddress) uint16 {
	n := slices.Index(t.addresses, a)
	if n < 0 {
		n = len(t.addresses)
		t.addresses = append(t.addresses, a)
	}
	return uint16(n + 1)
}

// translates says whether auto is known to have something of a family to translate.
func (s *sender) translates(ipv4 bool, announced []netip.Prefix) bool {
	return slices.ContainsFunc(s.sources, func(source netip.Prefix) bool {
		return source.Addr().Is4() == ipv4 && isPrivate(source.Addr()) && !within(source, announced)
	})
}

func within(p netip.Prefix, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(around netip.Prefix) bool { return around.Bits() <= p.Bits() && around.Contains(p.Addr()) })
}

// tellOfIdle is about auto that does less than who wrote it may think.
func (c *compiler) tellOfIdle(s sender, announced []netip.Prefix) {
	var kept []string
	private := s.many
	for _, source := range s.sources {
		private = private || isPrivate(source.Addr())
		if within(source, announced) {
			kept = append(kept, textOf(source))
		}
	}
	switch {
	case len(kept) > 0:
		c.note("%s: snat: auto does not translate %s, which BGP announces: answers find their way", s.what, strings.Join(kept, " and "))
	case !private:
		c.note("%s: snat: auto translates private sources, and it has none", s.what)
	}
}

// textOf is a prefix, or the one address in it.
func textOf(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Announced says which prefix of the node's own announcements has snat: auto leave a source as it is; invalid: none.
func (d *Desired) Announced(source netip.Addr) netip.Prefix {
	for _, p := range d.TC.Generation.Announced {
		if p.Contains(source) {
			return p
		}
	}
	return netip.Prefix{}
}

// announced are the private prefixes that the node advertises: others know the way back to them. A shorter one, such as a
// default route, says nothing about them. Entries whose conditions do not hold count, and so do all in a drain: what is
// withdrawn for a while must not change the source of flows.
func (c *compiler) announced() []netip.Prefix {
	if c.cfg.BGP == nil {
		return nil
	}
	var out []netip.Prefix
	for _, p := range c.advertised() {
		if within(p, private) {
			out = append(out, p)
		}
	}
	return sortedPrefixes(out)
}

// ownAddress is what an uplink's name stands for: by family its first global address, the file's before others; where it has
// none, the first one of lo. What needs a family that is not to be had is dropped, so it is said.
func (c *compiler) ownAddress(uplink config.Interface, need4, need6 []string) tc.SNATAddress {
	var out tc.SNATAddress
	take := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			switch a := p.Addr(); {
			case a.IsLinkLocalUnicast() || a.IsLoopback():
			case a.Is4() && !out.IPv4.IsValid():
				out.IPv4 = a
			case a.Is6() && !out.IPv6.IsValid():
				out.IPv6 = a
			}
		}
	}
	take(c.addresses(uplink))
	lo := config.Interface{Name: "lo"}
	if n := slices.IndexFunc(c.cfg.Interfaces, func(i config.Interface) bool { return i.Name == "lo" }); n >= 0 {
		lo = c.cfg.Interfaces[n]
	}
	take(c.addresses(lo))
	warn := func(family string, needed []string) {
		c.warn = append(c.warn, fmt.Sprintf("uplink %s has no %s address to translate to, nor has lo: what %s sends out there from private %s addresses is dropped",
			uplink.Name, family, strings.Join(needed, ", "), family))
	}
	if !out.IPv4.IsValid() && len(need4) > 0 {
		warn("IPv4", need4)
	}
	if !out.IPv6.IsValid() && len(need6) > 0 {
		warn("IPv6", need6)
	}
	return out
}

// The ports that sources may be translated to.
const minSNATPort, maxSNATPort = 1024, 65535

// snatPorts is the file's range, or the larger part of those that the kernel does not give to the box's own sockets: a socket
// and a flow with the same addresses and ports would have each other's packets.
func (c *compiler) snatPorts() classify.PortRange {
	local := c.localPorts()
	out := classify.PortRange{First: c.cfg.SNATPorts.First, Last: c.cfg.SNATPorts.Last}
	if out.First == 0 {
		below, above := int(local.First)-minSNATPort, maxSNATPort-int(local.Last)
		switch {
		case local.First == 0 || below <= 0 && above <= 0:
			out = classify.PortRange{First: minSNATPort, Last: maxSNATPort}
		case below >= above:
			out = classify.PortRange{First: minSNATPort, Last: local.First - 1}
		default:
			out = classify.PortRange{First: max(local.Last+1, minSNATPort), Last: maxSNATPort}
		}
	}
	if local.First <= out.Last && out.First <= local.Last && local.First != 0 {
		c.warn = append(c.warn, fmt.Sprintf("snat.ports %d-%d and net.ipv4.ip_local_port_range %d-%d overlap: what the box itself sends "+
			"from a port that a translated flow to the same destination has is dropped", out.First, out.Last, local.First, local.Last))
	}
	return out
}

// localPorts are those of the kernel's own choice: as the file sets them, or as they are.
func (c *compiler) localPorts() classify.PortRange {
	local := classify.PortRange{First: c.facts.Host.LocalPorts[0], Last: c.facts.Host.LocalPorts[1]}
	for _, s := range c.cfg.Sysctls {
		var first, last uint16
		if s.Key == "net.ipv4.ip_local_port_range" {
			if _, err := fmt.Sscan(s.Value, &first, &last); err == nil {
				local = classify.PortRange{First: first, Last: last}
			}
		}
	}
	return local
}
