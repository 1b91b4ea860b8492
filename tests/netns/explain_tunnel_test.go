package netns

import (
	"fmt"
	"strings"
	"testing"
)

// TestExplainFollowsThePacketOutOfATunnelAndToABlackhole: what a tunnel lets out meets the LAN's hook, and what no tunnel takes any
// more is said to be lost.
func TestExplainFollowsThePacketOutOfATunnelAndToABlackhole(t *testing.T) {
	t.Parallel()
	const uplink = `  - {name: eth0, role: uplink, addresses: [198.18.0.2/30, "2001:db8::2/64"]}` + "\n"
	s := newTunnels(t, []string{uplink, uplink + "  - {name: eth1, role: downstream, addresses: [198.18.1.2/30]}\n"}, func(s *site) { s.uplink2(1) })
	const out, in = "icmp 10.20.0.1 > 198.18.1.1 type=echo-request", "icmp 198.18.1.1 > 10.20.0.1 type=echo-request"
	say := func(from, packet string) string {
		r := s.sluice("explain", "--in", from, "--packet", packet)
		return r.out + r.err
	}
	says := func(from, packet string, want ...string) {
		t.Helper()
		got := say(from, packet)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("explain --in %s %s does not say %q:\n%s", from, packet, w, got)
			}
		}
	}
	says("fra1", out, "tcx-ingress on fra1: stack, stack-forward", "tcx-egress on eth1: drop, forward-denied")
	says("eth1", in, "tcx-egress on fra1: pass")
	says("fra1", "icmp 192.0.2.1 > 198.18.1.1 type=echo-request",
		"no peer of fra1 may send this: the tunnel drops it before any hook, as 192.0.2.1 is in none of its prefixes (10.20.0.0/16 10.200.0.0/31)\ntcx-ingress on fra1:")
	if got := say("eth1", in) + say("fra1", out); strings.Contains(got, "lost") || strings.Contains(got, "no peer of") {
		t.Errorf("explain while all is well:\n%s", got)
	}

	// What is said of a packet that is too large is what the kernel does with it.
	const large = "larger than the MTU of fra1, 1440: the kernel forwards it in fragments, or where DF is set answers with fragmentation needed (ICMP)"
	says("eth1", in+" length=1441", large+"\ntcx-egress on fra1: pass")
	says("web-1", "icmp 203.0.113.10 > 10.20.0.1 type=echo-request length=1441", "tcx-ingress on web-1: stack, stack-mtu", large+"\ntcx-egress on fra1: pass")
	if got := say("eth1", in+" length=1440"); strings.Contains(got, "MTU") {
		t.Errorf("explain of a packet that fits:\n%s", got)
	}
	if r := s.in(s.Workload(1), "ping", "-n", "-c1", "-W5", "-M", "do", "-s", "1413", innerHost); !strings.Contains(r.out, "Frag needed and DF set (mtu = 1440)") {
		t.Errorf("a ping of 1441 bytes: %s%s", r.out, r.err)
	}
	if r := s.in(s.Workload(1), "ping", "-n", "-c1", "-W5", "-M", "do", "-s", "1412", innerHost); r.code != 0 {
		t.Errorf("a ping of 1440 bytes: %s%s", r.out, r.err)
	}
	const large6 = "but it is lost: larger than the MTU of eth0, 1500: the kernel answers with packet too big (ICMPv6)"
	const packet6 = "icmpv6 2001:db8:100::1 > 2001:db8::1 type=echo-request length="
	says("eth1", packet6+"1501", large6)
	if got := say("eth1", packet6+"1501"); strings.Contains(got, "tcx-egress") {
		t.Errorf("explain of a packet that nobody sends on:\n%s", got)
	}

	s.edit("\npolicy:\n", "\nforward: [{from: tunnel, to: downstream}]\n\npolicy:\n")
	s.apply()
	says("fra1", out, "tcx-egress on eth1: pass")

	s.must(s.ToR, "iptables -I FORWARD -p udp -m multiport --dports 51820,51821 -j DROP")
	const lost = "but it is lost: no tunnel to 10.20.0.0/16 is up, and its blackhole takes what must not leave in clear (strict)"
	eventually(t, func() error {
		if got := say("eth1", in); !strings.Contains(got, lost) {
			return fmt.Errorf("explain while no tunnel is up:\n%s", got)
		}
		return nil
	})
	says("web-1", "icmp 203.0.113.10 > 10.20.0.1 type=echo-request", "drop, no-route", lost)
}
