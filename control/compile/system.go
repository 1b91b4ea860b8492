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
	protoICMPv6 = 58
)

// system is the policy that the file itself implies: BGP with its neighbors, tunnel underlay with its peers, and the
// echo requests of the apply checks, each in the direction it needs. The same list is judged at ingress and at
// egress: source and destination keep the directions apart.
func (c *compiler) system() classify.Policy {
	s := &systemRules{c: c, self: c.selfPrefixes()}
	if c.cfg.BGP != nil {
		for _, n := range c.cfg.BGP.Neighbors {
			s.bgp(n)
		}
	}
	for _, t := range c.cfg.Tunnels {
		s.underlay(t)
	}
	for _, check := range c.cfg.Apply.Checks {
		if check.Reach.IsValid() {
			s.check(check.Reach)
		}
	}
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

// bgp lets a session be opened from either side.
func (s *systemRules) bgp(n config.Neighbor) {
	peer := hostPrefixes([]netip.Addr{n.Address})
	listen, remote := onePort(s.c.cfg.BGP.Listen), onePort(n.Port)
	name := "bgp-" + n.Name
	s.add(name+"-in", classify.Rule{From: peer, To: s.self, Protocol: protoTCP, Ports: listen})
	s.add(name+"-in-reply", classify.Rule{From: s.self, To: peer, Protocol: protoTCP, SourcePorts: listen})
	s.add(name+"-out", classify.Rule{From: s.self, To: peer, Protocol: protoTCP, Ports: remote})
	// A source port proves nothing: without the ports that clients use the neighbor would reach every service of the box.
	s.add(name+"-out-reply", classify.Rule{From: peer, To: s.self, Protocol: protoTCP, SourcePorts: remote, Ports: clientPorts()})
}

// underlay lets a tunnel's encrypted packets pass. A peer without an endpoint may come from anywhere: WireGuard itself
// answers only to those who know its key.
func (s *systemRules) underlay(t config.Tunnel) {
	port := onePort(t.Local.Port())
	peers := []netip.Prefix{}
	for _, p := range t.Peers {
		if len(p.Endpoints) == 0 {
			peers = nil
			break
		}
		for _, e := range p.Endpoints {
			peers = append(peers, hostPrefixes([]netip.Addr{e.Addr()})...)
		}
	}
	if peers != nil {
		peers = sortedPrefixes(peers)
	}
	s.add("tunnel-"+t.Name+"-in", classify.Rule{From: peers, To: s.self, Protocol: protoUDP, Ports: port})
	s.add("tunnel-"+t.Name+"-out", classify.Rule{From: s.self, To: peers, Protocol: protoUDP, SourcePorts: port})
}

// check lets an echo request go out; its answer is a reply to a tracked flow.
func (s *systemRules) check(to netip.Addr) {
	proto := protoICMP
	if to.Is6() {
		proto = protoICMPv6
	}
	s.add(fmt.Sprintf("check-reach-%s", to), classify.Rule{
		From: s.self, To: hostPrefixes([]netip.Addr{to}), Protocol: proto,
	})
}

// clientPorts are those that connect() takes, whatever net.ipv4.ip_local_port_range says: never the privileged ones.
func clientPorts() []classify.PortRange { return []classify.PortRange{{First: 1024, Last: 65535}} }

func onePort(p uint16) []classify.PortRange { return []classify.PortRange{{First: p, Last: p}} }
