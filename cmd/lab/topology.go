package lab

import "net/netip"

// The site's addresses. Those of the gateway's and the peer's own interfaces stand in configs/lab-*.yaml and are set by
// the daemons.
var (
	ToRAddress4 = netip.MustParseAddr("198.18.0.1") // on the gateway's uplink
	ToRAddress6 = netip.MustParseAddr("2001:db8::1")
	Gateway4    = netip.MustParseAddr("198.18.0.2")
	Gateway6    = netip.MustParseAddr("2001:db8::2")

	Web4 = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")}
	Web6 = []netip.Addr{netip.MustParseAddr("2001:db8:100::10"), netip.MustParseAddr("2001:db8:100::11")}

	Client4   = netip.MustParseAddr("198.51.100.10") // serves HTTP, too, as somebody in the Internet would
	Client6   = netip.MustParseAddr("2001:db8:c::10")
	Resolver4 = netip.MustParseAddr("198.51.100.53") // a DNS server on the client's host
	Resolver6 = netip.MustParseAddr("2001:db8:c::53")

	// Inside the tunnel, on the peer.
	Inner4 = netip.MustParseAddr("10.20.0.1")
	Inner6 = netip.MustParseAddr("fd00:20::1")

	// Attackers are the sources of the flood; the set of that name in lab-gateway.yaml holds the same.
	Attackers4 = netip.MustParsePrefix("198.19.0.0/16")
	Attackers6 = netip.MustParsePrefix("2001:db8:bad::/48")
)

// TunnelPort is the UDP port of the tunnel on both sides.
const TunnelPort = 51820

// host is a namespace with one link, eth0. What the daemons configure is left out.
type host struct {
	role      string
	addresses []string
	gateways  []string // default routes
}

var hosts = []host{
	{"tor", nil, nil},
	{"client",
		[]string{"198.51.100.10/24", "198.51.100.53/24", "2001:db8:c::10/64", "2001:db8:c::53/64"},
		[]string{"198.51.100.1", "2001:db8:c::1"}},
	{"attacker", []string{"192.0.2.66/24", "2001:db8:a::66/64"}, []string{"192.0.2.1", "2001:db8:a::1"}},
	{"gateway", nil, nil},
	{"web-1", []string{"203.0.113.10/32", "2001:db8:100::10/128"}, []string{"169.254.1.1", "fe80::1"}},
	{"web-2", []string{"203.0.113.11/32", "2001:db8:100::11/128"}, []string{"169.254.1.1", "fe80::1"}},
	{"peer", nil, nil},
}

// torLinks are the ToR's links: each has the name of the host at its other end.
var torLinks = []struct {
	host      string
	addresses []string
}{
	{"gateway", []string{"198.18.0.1/30", "2001:db8::1/64"}},
	{"peer", []string{"198.18.0.5/30", "2001:db8:0:1::1/64"}},
	{"client", []string{"198.51.100.1/24", "2001:db8:c::1/64"}},
	{"attacker", []string{"192.0.2.1/24", "2001:db8:a::1/64"}},
}

// hosts makes the namespaces.
func (s *Site) hosts() error {
	byRole := map[string]*Namespace{}
	for _, h := range hosts {
		ns, err := makeNamespace(prefix + s.ID + "-" + h.role)
		if err != nil {
			return err
		}
		ns.site, ns.role = s, h.role
		byRole[h.role] = ns
		s.namespaces = append(s.namespaces, ns)
	}
	s.ToR, s.Client, s.Attacker = byRole["tor"], byRole["client"], byRole["attacker"]
	s.workloads = []*Namespace{byRole["web-1"], byRole["web-2"]}
	s.Gateway, s.Peer = s.node(byRole["gateway"]), s.node(byRole["peer"])
	return nil
}

// wire joins the hosts and gives the lab's side its addresses. The gateway's and the peer's links get theirs from the
// daemons: here they are bare.
func (s *Site) wire() error {
	byRole := map[string]*Namespace{}
	for _, ns := range s.namespaces {
		byRole[ns.role] = ns
	}
	// Before the links are there, so that they inherit it. Sources of the flood are spoofed: a router that checked the
	// reverse path would drop them, and prove nothing about the gateway.
	for key, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
	} {
		if err := s.ToR.Sysctl(key, value); err != nil {
			return err
		}
	}
	for _, l := range torLinks {
		if err := s.ToR.veth(l.host, byRole[l.host], "eth0"); err != nil {
			return err
		}
		if err := s.ToR.address(l.host, l.addresses...); err != nil {
			return err
		}
	}
	for _, w := range s.workloads {
		if err := s.Gateway.veth(w.role, w, "eth0"); err != nil {
			return err
		}
	}
	for _, h := range hosts {
		if len(h.addresses) == 0 {
			continue
		}
		ns := byRole[h.role]
		if err := ns.address("eth0", h.addresses...); err != nil {
			return err
		}
		if err := ns.defaultRoute("eth0", h.gateways...); err != nil {
			return err
		}
	}
	return nil
}
