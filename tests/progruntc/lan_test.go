package progruntc_test

import (
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Ids of the rules of guarded, and of the defaults of its LAN.
const (
	lanIn = w2ToW1 + 1 + iota
	lanNot
	lanDNS
	lanWeb
	lanNever
	lanInDefault
	lanOutDefault
)

// guarded gives the LAN policies, both of which drop by default.
func guarded(s *tc.State) {
	g := &s.Generation
	g.LANs = []tc.LAN{{
		Interface: "down",
		Ingress: classify.Policy{Name: "interface/down/ingress", Default: classify.Drop, DefaultID: lanInDefault, Rules: []classify.Rule{
			{ID: lanNot, Name: "not", From: prefixes("198.51.100.66"), Protocol: classify.AnyProtocol, Action: classify.Drop},
			{ID: lanIn, Name: "in", From: prefixes("198.51.100.0/24", "192.0.2.1", w1v4), Protocol: 6, Ports: ports(8080, 8080), Action: classify.Accept},
		}},
		Egress: classify.Policy{Name: "interface/down/egress", Default: classify.Drop, DefaultID: lanOutDefault, Rules: []classify.Rule{
			{ID: lanNever, Name: "never", To: prefixes("198.51.100.66"), Protocol: classify.AnyProtocol, Action: classify.Drop},
			{ID: lanDNS, Name: "dns", Protocol: 17, Ports: ports(53, 53), Action: classify.Accept},
			{ID: lanWeb, Name: "web", Protocol: 6, Ports: ports(80, 80), Action: classify.Accept},
		}},
	}}
	g.Failsafe.Rules[0].From = prefixes("198.51.100.0/24", lan4)
	g.System.Rules[0].From = prefixes("198.18.0.1", lan4)
	g.System.Rules[1].To = prefixes("198.18.0.1", lan4)
	g.Matrix[tc.RoleWorkload][tc.RoleDownstream] = true
	g.Matrix[tc.RoleDownstream][tc.RoleWorkload] = true
}

func TestALANHasPoliciesOfItsOwn(t *testing.T) {
	s := newSite(t, guarded)
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"what its hosts may send, with the answers", []step{
			{at: "down ingress", line: "udp 192.0.2.9:4000 > 198.51.100.7:53", reason: abi.ReasonStackForward, rule: lanDNS},
			{at: "uplink egress", from: "down", line: "udp 192.0.2.9:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded},
			{at: "uplink ingress", line: "udp 198.51.100.7:53 > 192.0.2.9:4000", reason: abi.ReasonStackForward},
			{at: "down egress", from: "uplink", line: "udp 198.51.100.7:53 > 192.0.2.9:4000", reason: abi.ReasonEstablished},
			{at: "down egress", from: "uplink", line: "udp 198.51.100.7:53 > 192.0.2.9:4001", reason: abi.ReasonDefaultDrop, rule: 0},
		}},
		{"what its hosts may not send", []step{
			{at: "down ingress", line: "udp 192.0.2.9:4000 > 198.51.100.7:54", reason: abi.ReasonDefaultDrop},
			{at: "down ingress", line: "udp 192.0.2.9:4000 > 198.51.100.66:53", reason: abi.ReasonRuleDrop, rule: lanNever},
			{at: "down ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonMartianSource},
			{at: "down ingress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonMartianSource},
		}},
		{"its hosts and the box itself", []step{
			{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:80", reason: abi.ReasonLocal, rule: lanWeb},
			{at: "down egress", line: "tcp 192.0.2.1:80 > 192.0.2.9:4000 flags=SA", reason: abi.ReasonEstablished},
			{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:81", reason: abi.ReasonDefaultDrop},
		}},
		{"management and the system rank above the policy", []step{
			{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:22", reason: abi.ReasonLocal, rule: ssh},
			{at: "down ingress", line: "tcp 192.0.2.9:4000 > 198.51.100.7:22", reason: abi.ReasonDefaultDrop},
			{at: "down egress", line: "tcp 192.0.2.1:22 > 192.0.2.9:4000 flags=SA", reason: abi.ReasonEstablished},
			{at: "down egress", line: "tcp 192.0.2.1:22 > 192.0.2.9:4999 flags=SA", reason: abi.ReasonFailsafe},
			{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:179", reason: abi.ReasonLocal, rule: bgpIn},
			{at: "down egress", line: "tcp 192.0.2.1:4000 > 192.0.2.9:179", reason: abi.ReasonSystem, rule: bgpOut},
		}},
		{"what the box sends meets policy.egress and then the LAN's", []step{
			{at: "down egress", line: "tcp 192.0.2.1:4000 > 192.0.2.9:8080", reason: abi.ReasonRuleAccept, rule: lanIn},
			{at: "down ingress", line: "tcp 192.0.2.9:8080 > 192.0.2.1:4000 flags=SA", reason: abi.ReasonLocal},
			{at: "down egress", line: "udp 192.0.2.1:4000 > 192.0.2.9:53", reason: abi.ReasonDefaultDrop},
			{at: "down egress", line: "tcp 192.0.2.1:4000 > 192.0.2.9:8081", reason: abi.ReasonDefaultDrop},
		}},
		{"from an uplink", []step{
			{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 192.0.2.9:8080", reason: abi.ReasonStackForward},
			{at: "down egress", from: "uplink", line: "tcp 198.51.100.7:9999 > 192.0.2.9:8080", reason: abi.ReasonRuleAccept, rule: lanIn},
			{at: "down ingress", line: "tcp 192.0.2.9:8080 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonStackForward},
			{at: "uplink egress", from: "down", line: "tcp 192.0.2.9:8080 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonForwarded},
			{at: "down egress", from: "uplink", line: "tcp 198.51.100.7:9999 > 192.0.2.9:8081", reason: abi.ReasonDefaultDrop},
			{at: "down egress", from: "uplink", line: "tcp 198.51.100.66:9999 > 192.0.2.9:8080", reason: abi.ReasonRuleDrop, rule: lanNot},
			{at: "down egress", from: "tap0", line: "tcp 198.51.100.7:9999 > 192.0.2.9:8080", reason: abi.ReasonForwardDenied},
		}},
		{"from a workload by redirect, judged once", []step{
			{at: "wl1 ingress", line: "tcp 10.0.1.10:4000 > 192.0.2.9:8080", reason: abi.ReasonForwarded, to: "down", rule: lanIn},
			{at: "down egress", from: "wl1", line: "tcp 10.0.1.10:4000 > 192.0.2.9:8080", mark: abi.MarkJudged, reason: abi.ReasonJudged},
			{at: "down ingress", line: "tcp 192.0.2.9:8080 > 10.0.1.10:4000 flags=SA", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 192.0.2.9:53", reason: abi.ReasonDefaultDrop},
		}},
		{"from a workload by the stack, judged at the LAN", []step{
			{at: "wl1 ingress", line: "tcp 10.0.1.10:4000 > 192.0.2.9:8080 ttl=1", reason: abi.ReasonStackTTL},
			{at: "down egress", from: "wl1", line: "tcp 10.0.1.10:4000 > 192.0.2.9:8080", reason: abi.ReasonRuleAccept, rule: lanIn},
			{at: "down egress", from: "wl1", line: "udp 10.0.1.10:4000 > 192.0.2.9:53", reason: abi.ReasonDefaultDrop},
		}},
		{"to a workload: both policies", []step{
			{at: "down ingress", line: "tcp 192.0.2.9:5000 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web},
			{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 192.0.2.9:5000 flags=SA", reason: abi.ReasonForwarded, to: "down"},
			{at: "down ingress", line: "udp 192.0.2.9:5000 > 10.0.1.10:53", reason: abi.ReasonDefaultDrop},
			{at: "down ingress", line: "tcp 192.0.2.9:5000 > 10.0.1.10:81", reason: abi.ReasonDefaultDrop},
		}},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			walk(t, s, test.steps...)
		})
	}
}

// TestWithoutAPolicyALANIsAsItWas takes the same packets.
func TestWithoutAPolicyALANIsAsItWas(t *testing.T) {
	s := newSite(t)
	walk(t, s,
		step{at: "down ingress", line: "udp 192.0.2.9:4000 > 198.51.100.7:54", reason: abi.ReasonStackForward},
		step{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:81", reason: abi.ReasonLocal},
		step{at: "down egress", from: "uplink", line: "tcp 198.51.100.66:9999 > 192.0.2.9:8081", reason: abi.ReasonForwarded},
		step{at: "down egress", line: "udp 192.0.2.1:4000 > 192.0.2.9:53", reason: abi.ReasonRuleAccept, rule: egressDNS},
	)
}

// TestALANsRevokedRuleStopsItsFlows: in both directions, whoever speaks first, and a new generation that permits them
// again lets them go on.
func TestALANsRevokedRuleStopsItsFlows(t *testing.T) {
	without := func(change func(*tc.LAN)) tc.State {
		want := baseline()
		guarded(&want)
		change(&want.Generation.LANs[0])
		return want
	}
	whole := without(func(*tc.LAN) {})
	s := newSite(t, func(want *tc.State) { *want = whole })
	for _, test := range []struct {
		name          string
		revoked       tc.State
		open, replies []step
	}{
		{"of what its hosts send", without(func(l *tc.LAN) { l.Egress.Rules = l.Egress.Rules[:1] }),
			[]step{
				{at: "down ingress", line: "tcp 192.0.2.9:4000 > 198.51.100.7:80", reason: abi.ReasonStackForward},
				{at: "uplink egress", from: "down", line: "tcp 192.0.2.9:4000 > 198.51.100.7:80", reason: abi.ReasonForwarded},
			},
			[]step{{at: "uplink ingress", line: "tcp 198.51.100.7:80 > 192.0.2.9:4000 flags=SA", reason: abi.ReasonStackForward}},
		},
		{"of what goes there", without(func(l *tc.LAN) { l.Ingress.Rules = l.Ingress.Rules[:1] }),
			[]step{{at: "down egress", from: "uplink", line: "tcp 198.51.100.7:9999 > 192.0.2.9:8080", reason: abi.ReasonRuleAccept}},
			[]step{{at: "down ingress", line: "tcp 192.0.2.9:8080 > 198.51.100.7:9999 flags=SA", reason: abi.ReasonStackForward}},
		},
		{"of what a workload sends there", without(func(l *tc.LAN) { l.Ingress.Rules = l.Ingress.Rules[:1] }),
			[]step{{at: "wl1 ingress", line: "tcp 10.0.1.10:4000 > 192.0.2.9:8080", reason: abi.ReasonForwarded, to: "down"}},
			[]step{{at: "down ingress", line: "tcp 192.0.2.9:8080 > 10.0.1.10:4000 flags=SA", reason: abi.ReasonDelivered, to: "wl1"}},
		},
		{"of what it sends to the box", without(func(l *tc.LAN) { l.Egress.Rules = l.Egress.Rules[:2] }),
			[]step{{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:80", reason: abi.ReasonLocal}},
			[]step{{at: "down egress", line: "tcp 192.0.2.1:80 > 192.0.2.9:4000 flags=SA", reason: abi.ReasonEstablished}},
		},
		{"of what the box sends there", without(func(l *tc.LAN) { l.Ingress.Rules = l.Ingress.Rules[:1] }),
			[]step{{at: "down egress", line: "tcp 192.0.2.1:4000 > 192.0.2.9:8080", reason: abi.ReasonRuleAccept}},
			[]step{{at: "down ingress", line: "tcp 192.0.2.9:8080 > 192.0.2.1:4000 flags=SA", reason: abi.ReasonLocal}},
		},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			walk(t, s, append(test.open, test.replies...)...)
			s.converge(t, test.revoked)
			for _, st := range test.replies {
				s.try(t, s.live(t), step{at: st.at, from: st.from, line: st.line, reason: abi.ReasonFlowRevoked})
			}
			first := test.open[0]
			s.try(t, s.live(t), step{at: first.at, from: first.from, line: first.line, reason: abi.ReasonDefaultDrop})
			s.converge(t, whole)
			walk(t, s, append(test.open, test.replies...)...)
		})
	}
	// What the system or management let in does not depend on the LAN's policies.
	s.sub(t, "but not those of the system", func(t *testing.T) {
		s.clearFlows(t)
		in := step{at: "down ingress", line: "tcp 192.0.2.9:4000 > 192.0.2.1:22", reason: abi.ReasonLocal}
		answer := step{at: "down egress", line: "tcp 192.0.2.1:22 > 192.0.2.9:4000 flags=SA", reason: abi.ReasonEstablished}
		out := step{at: "down egress", line: "tcp 192.0.2.1:4000 > 192.0.2.9:179", reason: abi.ReasonSystem}
		reply := step{at: "down ingress", line: "tcp 192.0.2.9:179 > 192.0.2.1:4000 flags=SA", reason: abi.ReasonLocal}
		walk(t, s, in, answer, out, reply)
		s.converge(t, without(func(l *tc.LAN) { l.Ingress.Rules, l.Egress.Rules = nil, nil }))
		walk(t, s, answer, reply, in, out)
	})
}

// TestALANBehindItsPolicies is the real thing: programs talk.
func TestALANBehindItsPolicies(t *testing.T) {
	s := newSite(t, guarded)
	s.gateway.serveTCP(t, "192.0.2.1", 80)
	s.gateway.serveTCP(t, "192.0.2.1", 81)
	s.gateway.serveTCP(t, "192.0.2.1", 22)
	s.workload1.serveTCP(t, w1v4, 80)
	s.outside.serveUDP(t, client4, 53)
	s.outside.serveTCP(t, client4, 8080)
	s.lan.serveTCP(t, lan4, 8080)
	s.outside.route(t, "192.0.2.0/24", self4, "eth0")

	s.lan.reaches(t, "udp", lan4, client4, 53)
	s.lan.doesNotReach(t, "tcp", lan4, client4, 8080)
	s.lan.reaches(t, "tcp", lan4, "192.0.2.1", 80)
	s.lan.doesNotReach(t, "tcp", lan4, "192.0.2.1", 81)
	s.lan.reaches(t, "tcp", lan4, "192.0.2.1", 22)
	s.lan.reaches(t, "tcp", lan4, w1v4, 80)
	s.outside.reaches(t, "tcp", client4, lan4, 8080)
	s.workload1.reaches(t, "tcp", w1v4, lan4, 8080)
	s.workload2.doesNotReach(t, "tcp", w2v4, lan4, 8080)
	s.gateway.reaches(t, "tcp", "", lan4, 8080)
	if n := s.counted(t, "down"); n[abi.ReasonDefaultDrop] == 0 || n[abi.ReasonStackForward] == 0 || n[abi.ReasonJudged] == 0 {
		t.Errorf("the LAN's interface counted %v", n)
	}
}
