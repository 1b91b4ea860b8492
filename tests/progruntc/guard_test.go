package progruntc_test

import (
	"net/netip"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// managed makes the LAN's interface one of management.
func managed(s *tc.State) {
	for i := range s.Interfaces {
		if s.Interfaces[i].Name == "down" {
			s.Interfaces[i].Role = tc.RoleManagement
		}
	}
}

// permissive has what the node itself sends pass, so that the guard alone drops.
func permissive(s *tc.State) {
	s.Generation.Egress = classify.Policy{Name: "egress", Default: classify.Accept}
}

func strictly(prefix ...string) func(*tc.State) {
	return func(s *tc.State) { s.Generation.Strict = prefixes(prefix...) }
}

func TestPlaintextToAStrictPrefixLeavesByNoWire(t *testing.T) {
	const to = "udp 198.18.0.2:4000 > 10.99.0.1:53"
	for _, test := range []struct {
		name   string
		change []func(*tc.State)
		steps  []step
	}{
		{"not by a LAN", nil, []step{
			{at: "down egress", line: to, reason: abi.ReasonStrictTunnel},
			{at: "down egress", line: "udp 10.0.1.10:4000 > 10.99.0.1:53", mark: abi.MarkJudged, from: "wl1", reason: abi.ReasonStrictTunnel},
			{at: "down egress", line: "udp 198.51.100.7:4000 > 10.99.0.1:53", from: "uplink", reason: abi.ReasonStrictTunnel},
			{at: "down egress", line: "udp 198.18.0.2:4000 > 10.98.0.1:53", reason: abi.ReasonDefaultAccept},
		}},
		{"not by management", []func(*tc.State){managed}, []step{
			{at: "down egress", line: to, reason: abi.ReasonStrictTunnel},
			{at: "down egress", line: "udp 198.18.0.2:4000 > 10.98.0.1:53", reason: abi.ReasonDefaultAccept},
		}},
		{"not by a tunnel that does not encrypt", nil, []step{
			{at: "tap0 egress", line: to, reason: abi.ReasonStrictTunnel},
		}},
		{"but by one that does", []func(*tc.State){func(s *tc.State) {
			for i := range s.Interfaces {
				s.Interfaces[i].Encrypted = s.Interfaces[i].Name == "tap0"
			}
		}}, []step{
			{at: "tap0 egress", line: to, reason: abi.ReasonDefaultAccept},
			{at: "tap0 egress", line: "udp 10.0.1.10:4000 > 10.99.0.1:53", mark: abi.MarkJudged, from: "wl1", reason: abi.ReasonJudged},
		}},
		{"a workload is on this box", []func(*tc.State){strictly("10.0.0.0/16")}, []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "wl1 egress", line: "tcp 169.254.1.1:4000 > 10.0.1.10:80", reason: abi.ReasonRuleAccept, rule: w1Web},
			{at: "uplink egress", line: "tcp 198.18.0.2:4000 > 10.0.1.10:80", reason: abi.ReasonStrictTunnel},
		}},
		{"what is encrypted leaves by any", nil, []step{
			{at: "uplink egress", line: "esp 198.18.0.2 > 10.99.0.1", mark: abi.MarkUnderlay, reason: abi.ReasonDefaultAccept},
			{at: "down egress", line: to, mark: abi.MarkUnderlay, reason: abi.ReasonDefaultAccept},
			{at: "uplink egress", line: "esp 198.18.0.2 > 10.99.0.1", reason: abi.ReasonStrictTunnel},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			walk(t, newSite(t, append([]func(*tc.State){permissive}, test.change...)...), test.steps...)
		})
	}
}

// TestAStrictDefaultRouteLeavesTheBoxsOwnWiresAlone: 0.0.0.0/0 and ::/0.
func TestAStrictDefaultRouteLeavesTheBoxsOwnWiresAlone(t *testing.T) {
	s := newSite(t, permissive, strictly("0.0.0.0/0", "::/0"), func(want *tc.State) {
		want.Generation.OnLink = []tc.OnLink{{Interface: "down", Prefix: netip.MustParsePrefix("192.0.2.0/24")},
			{Interface: "down", Prefix: netip.MustParsePrefix("2001:db8:4::/64")}}
	})
	walk(t, s,
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 192.0.2.9:53", reason: abi.ReasonDefaultAccept},
		step{at: "down egress", line: "udp [2001:db8:4::1]:4000 > [2001:db8:4::9]:53", reason: abi.ReasonDefaultAccept},
		step{at: "uplink egress", line: "udp 192.0.2.1:4000 > 192.0.2.9:53", reason: abi.ReasonStrictTunnel}, // its route has gone
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 192.0.3.9:53", reason: abi.ReasonStrictTunnel},
		step{at: "uplink egress", line: "udp 198.18.0.2:68 > 255.255.255.255:67", reason: abi.ReasonDefaultAccept},
		step{at: "uplink egress", line: "89 198.18.0.2 > 224.0.0.5", reason: abi.ReasonDefaultAccept},
		step{at: "uplink egress", line: "udp 198.18.0.2:9 > 239.1.1.1:9", reason: abi.ReasonStrictTunnel},
		step{at: "uplink egress", line: "tcp [fe80::1]:4000 > [fe80::2]:179 flags=S", reason: abi.ReasonDefaultAccept},
		step{at: "uplink egress", line: "udp [fe80::1]:546 > [ff02::1:2]:547", reason: abi.ReasonDefaultAccept},
		step{at: "uplink egress", line: "udp [2001:db8::2]:9 > [ff0e::1]:9", reason: abi.ReasonStrictTunnel},
		step{at: "uplink egress", line: "udp [2001:db8::2]:9 > [2001:db8::1]:9", reason: abi.ReasonStrictTunnel},
	)
}

// TestAStrictPrefixOutranksAnExceptionOfItsLength, and a longer one an exception that it is in.
func TestAStrictPrefixOutranksAnExceptionOfItsLength(t *testing.T) {
	s := newSite(t, permissive, strictly("192.0.2.0/24", "192.0.2.128/25", "10.0.0.0/8"), func(want *tc.State) {
		want.Generation.OnLink = []tc.OnLink{{Interface: "down", Prefix: netip.MustParsePrefix("10.7.0.0/16")},
			{Interface: "down", Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	})
	walk(t, s,
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 192.0.2.9:53", reason: abi.ReasonStrictTunnel},
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 10.7.0.9:53", reason: abi.ReasonDefaultAccept},
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 10.8.0.9:53", reason: abi.ReasonStrictTunnel},
	)
}

// TestTheGuardDoesNotCutOffTheOperator: answers of management: leave by its interface, whatever is strict; nothing else does.
func TestTheGuardDoesNotCutOffTheOperator(t *testing.T) {
	const answer = "tcp 198.18.0.2:22 > 198.51.100.7:4000 flags=SA"
	walk(t, newSite(t, managed, strictly("198.51.100.0/24")),
		step{at: "down egress", line: answer, reason: abi.ReasonFailsafe},
		step{at: "down egress", line: "tcp 198.18.0.2:23 > 198.51.100.7:4000 flags=SA", reason: abi.ReasonStrictTunnel},
		step{at: "down egress", line: "tcp 198.18.0.2:4000 > 198.51.100.7:22 flags=S", reason: abi.ReasonStrictTunnel},
		step{at: "down egress", line: answer, from: "uplink", reason: abi.ReasonStrictTunnel},
		step{at: "uplink egress", line: answer, reason: abi.ReasonStrictTunnel},
	)
}
