package progruntc_test

import (
	"fmt"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

func TestEveryStageHasItsReason(t *testing.T) {
	s := newSite(t)
	tests := []struct {
		name  string
		steps []step
	}{
		{"inbound to an open port is delivered", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web},
			{at: "uplink ingress", line: "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web},
		}},
		{"inbound to a closed port is dropped by the workload's default", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:81", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "udp [2001:db8:7::7]:9999 > [fd00:1::10]:80", reason: abi.ReasonDefaultDrop},
		}},
		{"a workload answers what was delivered to it, and nothing else", []step{
			{at: "wl2 ingress", line: "tcp 10.0.1.20:80 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.20:80", reason: abi.ReasonDelivered, to: "wl2", rule: w2Web},
			{at: "wl2 ingress", line: "tcp 10.0.1.20:80 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonForwarded, to: "uplink"},
			{at: "wl2 ingress", line: "tcp 10.0.1.20:80 > 198.51.100.7:9998 flags=SA", reason: abi.ReasonDefaultDrop},
			{at: "wl2 ingress", line: "tcp 10.0.1.20:81 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonDefaultDrop},
			{at: "wl2 ingress", line: "udp 10.0.1.20:80 > 198.51.100.7:9999", reason: abi.ReasonDefaultDrop},
		}},
		{"what a workload opened is answered, and nothing else", []step{
			{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDefaultDrop},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink", rule: w1Out},
			{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "uplink ingress", line: "udp 198.51.100.7:54 > 10.0.1.10:4000", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "udp 198.51.100.8:53 > 10.0.1.10:4000", reason: abi.ReasonDefaultDrop},
			{at: "wl1 ingress", line: "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53", reason: abi.ReasonForwarded, to: "uplink", rule: w1Out},
			{at: "uplink ingress", line: "udp [2001:db8:7::7]:53 > [fd00:1::10]:4000", reason: abi.ReasonDelivered, to: "wl1"},
		}},
		{"a ping is answered, and asks in one direction only", []step{
			{at: "wl1 ingress", line: "icmp 10.0.1.10 > 198.51.100.7 type=8 id=7", reason: abi.ReasonForwarded, to: "uplink", rule: w1Out},
			{at: "uplink ingress", line: "icmp 198.51.100.7 > 10.0.1.10 type=0 id=7", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "uplink ingress", line: "icmp 198.51.100.7 > 10.0.1.10 type=0 id=8", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "icmp 198.51.100.7 > 10.0.1.10 type=8 id=7", reason: abi.ReasonDefaultDrop},
		}},
		{"an explicit drop beats an established flow", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.66:53", reason: abi.ReasonRuleDrop, rule: w1Bad},
		}},
		{"a workload's forbidden egress is dropped", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 192.0.2.77:53", reason: abi.ReasonDefaultDrop},
			{at: "wl2 ingress", line: "udp 10.0.1.20:4000 > 198.51.100.7:53", reason: abi.ReasonDefaultDrop},
		}},
		{"a source that is not the workload's own is spoofed", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.20:4000 > 198.51.100.7:53", reason: abi.ReasonWorkloadSpoofed},
			{at: "wl1 ingress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonWorkloadSpoofed},
			{at: "wl1 ingress", line: "udp [fd00:1::20]:4000 > [2001:db8:7::7]:53", reason: abi.ReasonWorkloadSpoofed},
			{at: "wl1 ingress", line: "udp [fe80::10]:4000 > [2001:db8:7::7]:53", reason: abi.ReasonWorkloadSpoofed},
			{at: "wl1 ingress", line: "udp [fe80::10]:5353 > [ff02::fb]:5353", reason: abi.ReasonDefaultDrop}, // its own, but not allowed
		}},
		{"from outside nobody comes as the box or as a workload", []step{
			{at: "wl2 ingress", line: "tcp 10.0.1.20:4000 > 10.0.1.10:80", reason: abi.ReasonForwardDenied},
			{at: "uplink ingress", line: "tcp 10.0.1.20:80 > 10.0.1.10:80", reason: abi.ReasonMartianSource},
			{at: "uplink ingress", line: "tcp 169.254.1.1:80 > 10.0.1.10:80", reason: abi.ReasonMartianSource},
			{at: "tap0 ingress", line: "tcp [fd00:1::20]:80 > [fd00:1::10]:80", reason: abi.ReasonMartianSource},
			{at: "uplink ingress", line: "udp 10.0.1.20:80 > 198.18.0.2:80", reason: abi.ReasonMartianSource},
			{at: "uplink ingress", line: "tcp [2001:db8::2]:179 > [2001:db8::2]:80", reason: abi.ReasonMartianSource},
			{at: "uplink ingress", line: "tcp [2001:db8::2]:179 > [fd00:77::9]:80", reason: abi.ReasonMartianSource},
			{at: "down ingress", line: "udp 10.0.1.10:80 > 198.51.100.7:4000", reason: abi.ReasonMartianSource}, // no flow in its name
			{at: "uplink egress", line: "udp 10.0.1.10:80 > 198.51.100.7:4000", from: "lo", reason: abi.ReasonMartianSource},
			{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "uplink ingress", line: "tcp [fe80::1]:4000 > [fe80::2]:179", reason: abi.ReasonLocal}, // a router's, on its link
		}},
		{"what no router forwards does not reach a workload", []step{
			{at: "uplink ingress", line: "tcp 127.0.0.1:9999 > 10.0.1.10:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp 0.0.0.0:9999 > 10.0.1.10:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp 224.0.0.1:9999 > 10.0.1.10:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp [::1]:9999 > [fd00:1::10]:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp [::]:9999 > [fd00:1::10]:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp [fe80::1]:9999 > [fd00:1::10]:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp [ff02::1]:9999 > [fd00:1::10]:80", reason: abi.ReasonUnroutable},
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 dst-mac=ff:ff:ff:ff:ff:ff", reason: abi.ReasonUnroutable},
		}},
		{"a route's end: blackhole is ours, unreachable is the kernel's", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 203.0.113.9:53", reason: abi.ReasonStackNoRoute, rule: w1Out},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 203.0.113.129:53", reason: abi.ReasonNoRoute, rule: w1Out},
		}},
		{"a spent TTL is the kernel's to answer", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 ttl=1", reason: abi.ReasonStackTTL},
			{at: "wl1 ingress", line: "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53 ttl=1", reason: abi.ReasonStackTTL},
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 ttl=2", reason: abi.ReasonDelivered, to: "wl1"},
		}},
		{"what does not fit is the kernel's to answer", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 len=1514", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 len=1515", reason: abi.ReasonStackMTU},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53 len=1515", reason: abi.ReasonStackMTU},
		}},
		{"a workload reaches what is behind a tunnel", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 10.20.0.9:53", reason: abi.ReasonForwarded, to: "tap0"},
			{at: "tap0 ingress", line: "udp 10.20.0.9:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "tap0 ingress", line: "udp 10.20.0.9:53 > 10.0.1.10:4001", reason: abi.ReasonDefaultDrop}, // policy.ingress
			{at: "tap0 ingress", line: "tcp 10.20.0.9:53 > 10.0.1.10:80", reason: abi.ReasonForwardDenied}, // which lets it in
		}},
		{"plaintext to a strict prefix is dropped, whoever sends it", []step{
			{at: "uplink egress", line: "udp 198.18.0.2:4000 > 10.99.0.1:53", reason: abi.ReasonStrictTunnel},
			{at: "uplink egress", line: "udp 10.0.1.10:4000 > 10.99.0.1:53", mark: abi.MarkJudged, from: "wl1", reason: abi.ReasonStrictTunnel},
			{at: "uplink egress", line: "udp 198.18.0.2:4000 > 10.99.0.1:53", mark: abi.MarkUnderlay, reason: abi.ReasonRuleAccept, rule: egressDNS},
		}},
		{"what ingress judged passes egress", []step{
			{at: "uplink egress", line: "udp 10.0.1.10:4000 > 198.51.100.7:1", mark: abi.MarkJudged, from: "wl1", reason: abi.ReasonJudged},
		}},
		{"the box's own: rules, default, system, and replies", []step{
			{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonRuleAccept, rule: egressDNS},
			{at: "uplink ingress", line: "udp 198.51.100.7:53 > 198.18.0.2:4000", reason: abi.ReasonLocal},
			{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.7:54", reason: abi.ReasonDefaultDrop},
			{at: "uplink egress", line: "tcp 198.18.0.2:4000 > 198.18.0.1:179", reason: abi.ReasonSystem, rule: bgpOut},
			{at: "uplink egress", line: "tcp 198.18.0.2:777 > 198.51.100.7:4000 flags=SA", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 198.18.0.2:777", reason: abi.ReasonLocal}, // XDP let it in
			{at: "uplink egress", line: "tcp 198.18.0.2:777 > 198.51.100.7:4000 flags=SA", reason: abi.ReasonEstablished},
		}},
		{"answers of management: need no flow", []step{
			{at: "uplink egress", line: "tcp 198.18.0.2:22 > 198.51.100.7:4000 flags=SA", reason: abi.ReasonFailsafe},
			{at: "uplink egress", line: "tcp 198.18.0.2:22 > 203.0.113.7:4000 flags=SA", reason: abi.ReasonDefaultDrop},
			{at: "uplink egress", line: "tcp 10.0.1.10:22 > 198.51.100.7:4000 flags=SA", reason: abi.ReasonDefaultDrop}, // not the box
		}},
		{"the box to a workload: by the workload's ingress policy", []step{
			{at: "wl1 egress", line: "tcp 169.254.1.1:4000 > 10.0.1.10:80", reason: abi.ReasonRuleAccept, rule: w1Web},
			{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 169.254.1.1:4000 flags=SA", reason: abi.ReasonLocal},
			{at: "wl1 egress", line: "udp 169.254.1.1:4000 > 10.0.1.10:80", reason: abi.ReasonDefaultDrop},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 169.254.1.1:53", reason: abi.ReasonDefaultDrop},
		}},
		{"what the kernel forwards meets the matrix at egress", []step{
			{at: "uplink ingress", line: "udp 198.51.100.7:53 > 192.0.2.9:53", reason: abi.ReasonStackForward},
			{at: "down egress", line: "udp 198.51.100.7:53 > 192.0.2.9:53", from: "uplink", reason: abi.ReasonForwarded},
			{at: "down egress", line: "udp 10.20.0.9:53 > 192.0.2.9:53", from: "tap0", reason: abi.ReasonForwardDenied},
			{at: "tap0 egress", line: "udp 192.0.2.9:53 > 10.20.0.9:53", from: "down", reason: abi.ReasonForwarded},
			{at: "down egress", line: "udp 10.20.0.9:53 > 192.0.2.9:53", from: "tap0", reason: abi.ReasonForwarded}, // the answer
			{at: "wl1 egress", line: "tcp 198.51.100.7:53 > 10.0.1.10:80", from: "uplink", reason: abi.ReasonRuleAccept, rule: w1Web},
			{at: "wl1 egress", line: "tcp 198.51.100.7:53 > 10.0.1.10:81", from: "uplink", reason: abi.ReasonDefaultDrop},
			{at: "wl1 egress", line: "tcp 192.0.2.9:53 > 10.0.1.10:80", from: "down", reason: abi.ReasonForwardDenied},
		}},
		{"link control passes everywhere, but only on its link", []step{
			{at: "wl1 ingress", line: "icmpv6 fe80::10 > fe80::1 type=135 ttl=255", reason: abi.ReasonLinkControl},
			{at: "wl1 ingress", line: "icmpv6 fe80::10 > ff02::1:ff00:1 type=135 ttl=255", reason: abi.ReasonLinkControl},
			{at: "uplink egress", line: "icmpv6 2001:db8::2 > 2001:db8::1 type=135 ttl=255", reason: abi.ReasonLinkControl},
			{at: "uplink egress", line: "icmpv6 2001:db8::2 > 2001:db8::1 type=135 ttl=64", reason: abi.ReasonDefaultDrop},
			{at: "wl2 ingress", line: "icmpv6 fd00:1::20 > 2001:db8:7::7 type=135 ttl=255", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "icmpv6 2001:db8::1 > 2001:db8::2 type=136 ttl=255", reason: abi.ReasonLinkControl},
			{at: "uplink ingress", line: "icmpv6 2001:db8::1 > fd00:1::10 type=136 ttl=255", reason: abi.ReasonDefaultDrop},
			{at: "uplink ingress", line: "icmpv6 fe80::1 > ff02::1 type=134 ttl=255", reason: abi.ReasonLinkControl},
			{at: "wl1 ingress", line: "icmpv6 fe80::10 > ff02::1 type=134 ttl=255", reason: abi.ReasonWorkloadRouter},
			{at: "wl1 ingress", line: "icmpv6 fe80::10 > fe80::1 type=137 ttl=255", reason: abi.ReasonWorkloadRouter},
			{at: "wl2 ingress", line: "icmpv6 fd00:1::20 > 2001:db8:7::7 type=143 ttl=1", reason: abi.ReasonDefaultDrop},
			{at: "wl2 ingress", frame: []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06............................"), reason: abi.ReasonLinkControl},
			{at: "wl2 ingress", frame: []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\x47............................"), reason: abi.ReasonUnknownEthertype},
		}},
		{"multicast is left to the kernel, to another host nothing is done", []step{
			{at: "uplink ingress", line: "udp 198.18.0.1:4000 > 224.0.0.5:4000 dst-mac=01:00:5e:00:00:05", reason: abi.ReasonMulticast},
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 dst-mac=02:00:00:00:77:77", reason: abi.ReasonOtherHost},
		}},
		{"a first fragment shows its ports, a later one does not", []step{
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53 frag=0+", reason: abi.ReasonForwarded, to: "uplink"},
			{at: "wl1 ingress", line: "udp 10.0.1.10 > 198.51.100.7 frag=1480", reason: abi.ReasonForwarded, to: "uplink", rule: w1Out}, // no port is asked
			{at: "uplink ingress", line: "tcp 198.51.100.7 > 10.0.1.10 frag=1480", reason: abi.ReasonFragmentDefaultDrop},
			{at: "uplink ingress", line: "udp 198.51.100.7 > 10.0.1.10 frag=1480", reason: abi.ReasonDefaultDrop}, // no rule for udp at all
		}},
	}
	for _, test := range tests {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			walk(t, s, test.steps...)
		})
	}
}

func TestPolicyIngressIsJudgedWhereXDPDoesNot(t *testing.T) {
	s := newSite(t, judged)
	walk(t, s,
		step{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 198.18.0.2:22", reason: abi.ReasonLocal, rule: ssh},
		step{at: "uplink ingress", line: "tcp 203.0.113.7:4000 > 198.18.0.2:22", reason: abi.ReasonDefaultDrop},
		step{at: "uplink ingress", line: "tcp 198.18.0.1:4000 > 198.18.0.2:179", reason: abi.ReasonLocal, rule: bgpIn},
		step{at: "uplink ingress", line: "tcp 198.51.100.66:4000 > 10.0.1.10:80", reason: abi.ReasonRuleDrop, rule: ingressBad},
		step{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web},
		step{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 10.0.1.20:80", reason: abi.ReasonDefaultDrop}, // though workload two has it open
		step{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonRuleAccept, rule: egressDNS},
		step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 198.18.0.2:4000", reason: abi.ReasonLocal},
		step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 198.18.0.2:4001", reason: abi.ReasonDefaultDrop},
	)
}

// TestALinkLocalFlowStaysOnItsLink: a workload may send from any link-local address, the box's on the uplink, too.
func TestALinkLocalFlowStaysOnItsLink(t *testing.T) {
	s := newSite(t, judged, func(want *tc.State) {
		want.Generation.Workloads[0].Egress = classify.Policy{Name: "workload/one/egress", Default: classify.Accept}
	})
	walk(t, s,
		step{at: "uplink ingress", line: "tcp [fe80::99]:4000 > [fe80::2]:22", reason: abi.ReasonDefaultDrop},
		step{at: "wl1 ingress", line: "tcp [fe80::2]:22 > [fe80::99]:4000", reason: abi.ReasonLocal},
		step{at: "uplink ingress", line: "tcp [fe80::99]:4000 > [fe80::2]:22", reason: abi.ReasonDefaultDrop},
		step{at: "wl2 egress", line: "tcp [fe80::99]:4000 > [fe80::2]:22", reason: abi.ReasonDefaultDrop},
		step{at: "wl1 egress", line: "tcp [fe80::99]:4000 > [fe80::2]:22", reason: abi.ReasonEstablished},
	)
}

// TestTheMatrixDecidesForEveryPairOfRoles asks both matrices, all open and all closed, at the hook that judges the pair.
func TestTheMatrixDecidesForEveryPairOfRoles(t *testing.T) {
	s := newSite(t)
	sources := map[tc.Role]struct{ iface, address string }{
		tc.RoleNone: {"lo", "203.0.113.50"}, tc.RoleUplink: {"uplink", client4}, tc.RoleDownstream: {"down", lan4},
		tc.RoleWorkload: {"wl2", w2v4}, tc.RoleTunnel: {"tap0", remote4}, tc.RoleManagement: {"mgmt", "203.0.113.60"},
	}
	destinations := map[tc.Role]struct{ iface, address string }{
		tc.RoleUplink: {"uplink", client4}, tc.RoleDownstream: {"down", lan4}, tc.RoleWorkload: {"wl1", w1v4},
		tc.RoleTunnel: {"tap0", remote4}, tc.RoleManagement: {"mgmt", "203.0.113.61"},
	}
	s.gateway.connect(t, "mgmt", s.lan, "mgmt0")
	for _, allowed := range []bool{true, false} {
		want := baseline()
		want.Interfaces = append(want.Interfaces, tc.Interface{Name: "mgmt", Role: tc.RoleManagement})
		for from := range want.Generation.Matrix {
			for to := range want.Generation.Matrix[from] {
				want.Generation.Matrix[from][to] = allowed
			}
		}
		s.converge(t, sorted(want))
		g := s.live(t)
		for from, src := range sources {
			for to, dst := range destinations {
				s.sub(t, fmt.Sprintf("%s to %s, %v", from, to, allowed), func(t *testing.T) {
					s.clearFlows(t)
					st := step{at: dst.iface + " egress", from: src.iface, reason: abi.ReasonForwardDenied,
						line: fmt.Sprintf("tcp %s:999 > %s:80", src.address, dst.address)}
					if allowed {
						st.reason = abi.ReasonForwarded
						if to == tc.RoleWorkload {
							st.reason = abi.ReasonRuleAccept
						}
					}
					s.try(t, g, st)
				})
			}
		}
	}
}

func TestAForwardEntryOpensWorkloadToWorkloadAndTheirPoliciesStillJudge(t *testing.T) {
	s := newSite(t, open(tc.RoleWorkload, tc.RoleWorkload))
	walk(t, s,
		step{at: "wl2 ingress", line: "tcp 10.0.1.20:4000 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web},
		step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 10.0.1.20:4000 flags=SA", reason: abi.ReasonDelivered, to: "wl2"},
		step{at: "wl2 ingress", line: "tcp 10.0.1.20:4000 > 10.0.1.10:81", reason: abi.ReasonDefaultDrop},
		step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 10.0.1.20:4001 flags=SA", reason: abi.ReasonDefaultDrop},
	)
}

// TestTheMarkExcusesOnlyWhatThisBoxJudgedJustNow: bits that are not ours stay.
func TestTheMarkExcusesOnlyWhatThisBoxJudgedJustNow(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	const others = 0x80ff0077
	const stale = abi.MarkJudged | abi.MarkUnderlay | others
	for _, test := range []struct {
		why  string
		step step
		want uint32
	}{
		{"left to the kernel unjudged", step{at: "uplink ingress", line: "udp 198.51.100.7:1 > 192.0.2.9:1", mark: stale}, others},
		{"delivered: no mark goes into a workload", step{at: "uplink ingress", line: "tcp 198.51.100.7:1 > 10.0.1.10:80", mark: stale}, others},
		{"forwarded", step{at: "wl1 ingress", line: "udp 10.0.1.10:1 > 198.51.100.7:1", mark: stale}, others | abi.MarkJudged},
		{"judged, but left to the kernel to deliver", step{at: "uplink ingress", line: "tcp 198.51.100.7:1 > 10.0.1.10:80 ttl=1"}, abi.MarkDeliver},
		{"for the box", step{at: "wl1 ingress", line: "tcp 10.0.1.10:1 > 198.18.0.2:1", mark: abi.MarkJudged}, 0},
	} {
		if got := s.send(t, g, test.step).mark; got != test.want {
			t.Errorf("%s: mark %#x, want %#x", test.why, got, test.want)
		}
	}
}
