package progruntc_test

import (
	"fmt"
	"net/netip"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const fragmentPort = 5300

// following makes every policy track fragments, with a rule that accepts a port.
func following(s *tc.State) {
	g := &s.Generation
	for _, p := range []*classify.Policy{&g.Ingress, &g.Egress, &g.Workloads[0].Ingress, &g.Workloads[1].Egress} {
		p.Fragments = classify.FragTrack
		p.Rules = append(p.Rules, classify.Rule{ID: 90, Name: "fragments-" + p.Name, Protocol: 17, Ports: ports(fragmentPort, fragmentPort),
			Action: classify.Accept})
	}
}

// TestLaterFragmentsFollowTheirFirstInEveryPolicy: what spec lines make has one identification, so each pair of addresses is one
// datagram.
func TestLaterFragmentsFollowTheirFirstInEveryPolicy(t *testing.T) {
	s := newSite(t, judged, following)
	g := s.live(t)
	for _, c := range []struct {
		name, at, from, to string
		first              abi.Reason
		redirected         string // where what is accepted goes
		later              abi.Reason
	}{
		{"policy.ingress", "uplink ingress", client4, self4, abi.ReasonLocal, "", abi.ReasonLocal},
		{"policy.ingress, IPv6", "uplink ingress", client6, self6, abi.ReasonLocal, "", abi.ReasonLocal},
		{"policy.ingress and the workload's", "uplink ingress", client4, w1v4, abi.ReasonDelivered, "wl1", abi.ReasonDelivered},
		{"policy.egress", "uplink egress", self4, client4, abi.ReasonRuleAccept, "", abi.ReasonFragmentTracked},
		{"a workload's ingress", "wl1 egress", self4, w1v4, abi.ReasonRuleAccept, "", abi.ReasonFragmentTracked},
		{"a workload's egress", "wl2 ingress", w2v4, client4, abi.ReasonForwarded, "uplink", abi.ReasonForwarded},
	} {
		s.sub(t, c.name, func(t *testing.T) {
			line := func(port int, frag string) string {
				if frag != "0+" {
					return fmt.Sprintf("udp %s > %s frag=%s", c.from, c.to, frag)
				}
				from, to := netip.MustParseAddr(c.from), netip.MustParseAddr(c.to)
				return fmt.Sprintf("udp %s > %s frag=%s", netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(to, uint16(port)), frag)
			}
			s.try(t, g, step{at: c.at, line: line(0, "8+"), reason: abi.ReasonFragmentDefaultDrop})
			s.try(t, g, step{at: c.at, line: line(fragmentPort+1, "0+"), reason: abi.ReasonDefaultDrop})
			s.try(t, g, step{at: c.at, line: line(0, "8+"), reason: abi.ReasonFragmentDefaultDrop})
			s.try(t, g, step{at: c.at, line: line(fragmentPort, "0+"), reason: c.first, to: c.redirected, rule: 90})
			s.try(t, g, step{at: c.at, line: line(0, "8+"), reason: c.later, to: c.redirected})
			s.try(t, g, step{at: c.at, line: line(0, "1480"), reason: c.later, to: c.redirected})
		})
	}
}

// TestRepliesInFragmentsAreFollowed: the first of them passes by its flow, of which the later ones show nothing.
func TestRepliesInFragmentsAreFollowed(t *testing.T) {
	s := newSite(t, judged, following)
	g := s.live(t)
	s.try(t, g, step{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.9:5300", reason: abi.ReasonRuleAccept, rule: 90})
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.9:5300 > 198.18.0.2:4000 frag=0+", reason: abi.ReasonLocal})
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.9 > 198.18.0.2 frag=1480", reason: abi.ReasonLocal})
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.10 > 198.18.0.2 frag=1480", reason: abi.ReasonFragmentDefaultDrop})
}
