package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/xdp/classify"
)

// IP protocol numbers (IANA).
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoESP    = 50
	protoICMPv6 = 58
)

// RFC 5881 sections 4 and 5.
const (
	bfdPort = 3784
	bfdTTL  = 255
)

// system is the policy that the file itself implies: BGP and BFD with its neighbors, tunnel underlay with its peers, and the
// echo requests of the apply checks and of tunnels' health, each in the direction it needs. The same list is judged at ingress and at
// egress: source and destination keep the directions apart.
func (c *compiler) system() classify.Policy {
	s := &systemRules{c: c, self: c.selfPrefixes()}
	if c.cfg.BGP != nil {
		for _, n := range c.cfg.BGP.Neighbors {
			s.bgp(n)
			s.bfd(n)
		}
	}
	for _, t := range c.cfg.Tunnels {
		s.underlay(t)
		s.probes(t)
	}
	for _, check := range c.cfg.Apply.Checks {
		if check.Reach.IsValid() {
			s.check(check.Reach)
		}
	}
	for _, a := range c.cfg.Probed() {
		s.check(a)
	}
	s.names()
	s.clock()
	return classify.Policy{Name: "system", Default: classify.Continue, Rules: s.rules}
}

type systemRules struct {
	c     *compiler
	self  []netip.Prefix
	rules []classify.Rule
}

func (s *systemRules) add(name string, r classify.Rule) {
	if slices.ContainsFunc(s.rules, func(have classify.Rule) bool { return have.Name == name }) {
		return // two checks of one address
	}
	r.Name, r.ID, r.Action = name, s.c.ids.id("system/"+name), classify.Accept
	s.rules = append(s.rules, r)
}

// bgp lets a session be opened from either side, or by the neighbor alone where we are passive. ttl_security is the kernel's to
// check (IP_MINTTL): a rule that looks at the TTL would have every packet's looked at.
func (s *systemRules) bgp(n config.Neighbor) {
	peer := hostPrefixes([]netip.Addr{n.Address})
	listen, remote := onePort(s.c.cfg.BGP.Listen), onePort(n.Port)
	name := "bgp-" + n.Name
	s.add(name+"-in", classify.Rule{From: peer, To: s.self, Protocol: protoTCP, Ports: listen})
	s.add(name+"-in-reply", classify.Rule{From: s.self, To: peer, Protocol: protoTCP, SourcePorts: listen})
	if n.Passive {
		return
	}
	s.add(name+"-out", classify.Rule{From: s.self, To: peer, Protocol: protoTCP, Ports: remote})
	// A source port proves nothing: without the ports that clients use the neighbor would reach every service of the box.
	s.add(name+"-out-reply", classify.Rule{From: peer, To: s.self, Protocol: protoTCP, SourcePorts: remote, Ports: clientPorts()})
}

// bfd lets control packets pass both ways, and none that a router has touched.
func (s *systemRules) bfd(n config.Neighbor) {
	if n.BFD.Interval == 0 {
		return
	}
	peer := hostPrefixes([]netip.Addr{n.Address})
	control := classify.Rule{Protocol: protoUDP, Ports: onePort(bfdPort), TTL: bfdTTL}
	in, out := control, control
	in.From, in.To, out.From, out.To = peer, s.self, s.self, peer
	s.add("bfd-"+n.Name+"-in", in)
	s.add("bfd-"+n.Name+"-out", out)
}

// maxNamed is how many endpoints of a tunnel are named in the rules of its underlay. A hub of a thousand peers would have new
// rules, and new programs with them, for each peer that comes or goes.
const maxNamed = 32

// roaming says whether a tunnel's peers are followed to where their authentic packets come from.
func roaming(t config.Tunnel) bool {
	return t.Type == config.TypeWireGuard || t.IPsec.Keying == config.KeyingStatic && t.IPsec.Encapsulation == config.EncapsulationUDP
}

// underlay lets a tunnel's encrypted packets pass, and IKE. Peers that roam may come from anywhere, and so may
// one without an endpoint or with a DNS name, and all where there are many: the tunnel itself answers only to those who know a key.
func (s *systemRules) underlay(t config.Tunnel) {
	peers, known := []netip.Prefix{}, !roaming(t) || len(t.Peers) == 0
	for _, p := range t.Peers {
		for _, e := range p.Endpoints {
			known = known && e.Addr.IsValid()
			peers = append(peers, hostPrefixes([]netip.Addr{e.Addr})...)
		}
		known = known && len(p.Endpoints) > 0
	}
	peers = sortedPrefixes(peers)
	if !known || len(peers) > maxNamed {
		peers = nil
	}
	both := func(suffix string, in, out classify.Rule) {
		in.From, in.To, out.From, out.To = peers, s.self, s.self, peers
		s.add("tunnel-"+t.Name+"-in"+suffix, in)
		s.add("tunnel-"+t.Name+"-out"+suffix, out)
	}
	udp := func(suffix string, ports []classify.PortRange) {
		both(suffix, classify.Rule{Protocol: protoUDP, Ports: ports}, classify.Rule{Protocol: protoUDP, SourcePorts: ports})
	}
	switch {
	case t.Type == config.TypeWireGuard:
		udp("", onePort(t.Local.Port()))
	case t.IPsec.Keying == config.KeyingIKE:
		udp("-ike", append(onePort(ikePort), onePort(natPort)...))
	case t.IPsec.Encapsulation == config.EncapsulationUDP:
		udp("", onePort(t.Local.Port()))
	}
	if t.Type == config.TypeIPsec && t.IPsec.Encapsulation != config.EncapsulationUDP {
		both("-esp", classify.Rule{Protocol: protoESP}, classify.Rule{Protocol: protoESP})
	}
}

// probes let the echo requests of a tunnel's health go out, and the other end's come in to the device's own addresses. Probes
// in a network of the device count as that network: one of a thousand peers is not to change the rules.
func (s *systemRules) probes(t config.Tunnel) {
	if t.Health == nil {
		return
	}
	for _, six := range []bool{false, true} {
		var to, networks, own []netip.Prefix
		for _, a := range t.Addresses {
			if a.Addr().Is6() == six {
				networks, own = append(networks, a.Masked()), append(own, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
			}
		}
		for _, p := range t.Peers {
			switch n := slices.IndexFunc(networks, func(x netip.Prefix) bool { return x.Contains(p.Probe) }); {
			case !p.Probe.IsValid() || p.Probe.Is6() != six:
			case n >= 0:
				to = append(to, networks[n])
			default:
				to = append(to, netip.PrefixFrom(p.Probe, p.Probe.BitLen()))
			}
		}
		suffix, proto := "", protoICMP
		if six {
			suffix, proto = "6", protoICMPv6
		}
		if len(to) > 0 {
			s.add("tunnel-"+t.Name+"-probe"+suffix, classify.Rule{From: s.self, To: sortedPrefixes(to), Protocol: proto})
		}
		if len(networks) > 0 {
			s.add("tunnel-"+t.Name+"-probed"+suffix, classify.Rule{From: sortedPrefixes(networks), To: sortedPrefixes(own), Protocol: proto})
		}
	}
}

const dnsPort = 53

// names lets the box ask node.dns for endpoints that are names, and a node image for any; the answers are replies to tracked flows. Where the machine's own
// servers are asked instead, these are not known here, and policy.egress has to let it.
func (s *systemRules) names() {
	named := func(p config.Peer) bool {
		return slices.ContainsFunc(p.Endpoints, func(e config.Endpoint) bool { return !e.Addr.IsValid() })
	}
	if !s.c.facts.Image && !slices.ContainsFunc(s.c.cfg.Tunnels, func(t config.Tunnel) bool { return slices.ContainsFunc(t.Peers, named) }) {
		return
	}
	for _, server := range s.c.cfg.Node.DNS {
		for _, r := range []classify.Rule{{Protocol: protoUDP}, {Protocol: protoTCP}} {
			r.From, r.To, r.Ports = s.self, hostPrefixes([]netip.Addr{server}), onePort(dnsPort)
			s.add(fmt.Sprintf("dns-%s-%d", server, r.Protocol), r)
		}
	}
}

func echoOf(a netip.Addr) int {
	if a.Is6() {
		return protoICMPv6
	}
	return protoICMP
}

// check lets an echo request go out; its answer is a reply to a tracked flow.
func (s *systemRules) check(to netip.Addr) {
	s.add(fmt.Sprintf("check-reach-%s", to), classify.Rule{
		From: s.self, To: hostPrefixes([]netip.Addr{to}), Protocol: echoOf(to),
	})
}

// clientPorts are those that connect() takes, whatever net.ipv4.ip_local_port_range says: never the privileged ones.
func clientPorts() []classify.PortRange { return []classify.PortRange{{First: 1024, Last: 65535}} }

func onePort(p uint16) []classify.PortRange { return []classify.PortRange{{First: p, Last: p}} }
