package progruntc_test

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// accepting lets policy.ingress pass, so that the matrix alone decides about what comes out of tunnels.
func accepting(s *tc.State) {
	s.Generation.Ingress = classify.Policy{Name: "ingress", Default: classify.Accept}
}

// TestTunnelsForwardAsTheMatrixSays: forward: entries, in both directions. Each pair is denied unless it is written, but for what the inside
// opens toward a tunnel.
func TestTunnelsForwardAsTheMatrixSays(t *testing.T) {
	const tunnel, other, outside, lan, workload = "udp 10.20.0.9:4000", "10.21.0.9:53", "198.51.100.7:53", "192.0.2.9:53", "10.0.1.10:80"
	pairs := []struct {
		from, to tc.Role
		always   bool
		step     step // its reason where it passes
		answer   step
	}{
		{tc.RoleTunnel, tc.RoleUplink, false,
			step{at: "uplink egress", from: "tap0", line: tunnel + " > " + outside, reason: abi.ReasonForwarded},
			step{at: "tap0 egress", from: "uplink", line: "udp " + outside + " > 10.20.0.9:4000", reason: abi.ReasonForwarded}},
		{tc.RoleTunnel, tc.RoleDownstream, false,
			step{at: "down egress", from: "tap0", line: tunnel + " > " + lan, reason: abi.ReasonForwarded},
			step{at: "tap0 egress", from: "down", line: "udp " + lan + " > 10.20.0.9:4000", reason: abi.ReasonForwarded}},
		{tc.RoleTunnel, tc.RoleTunnel, false,
			step{at: "tap0 egress", from: "tun0", line: "udp " + other + " > 10.20.0.9:4000", reason: abi.ReasonForwarded},
			step{at: "tap0 ingress", line: tunnel + " > " + other, reason: abi.ReasonStackForward}},
		{tc.RoleTunnel, tc.RoleWorkload, false,
			step{at: "tap0 ingress", line: "tcp 10.20.0.9:4000 > " + workload, reason: abi.ReasonDelivered, to: "wl1"},
			step{at: "wl1 ingress", line: "tcp " + workload + " > 10.20.0.9:4000 flags=SA", reason: abi.ReasonForwarded, to: "tap0"}},
		{tc.RoleUplink, tc.RoleTunnel, false,
			step{at: "tap0 egress", from: "uplink", line: "udp " + outside + " > 10.20.0.9:4000", reason: abi.ReasonForwarded},
			step{at: "uplink egress", from: "tap0", line: tunnel + " > " + outside, reason: abi.ReasonForwarded}},
		{tc.RoleDownstream, tc.RoleTunnel, true,
			step{at: "tap0 egress", from: "down", line: "udp " + lan + " > 10.20.0.9:4000", reason: abi.ReasonForwarded},
			step{at: "down egress", from: "tap0", line: tunnel + " > " + lan, reason: abi.ReasonForwarded}},
		{tc.RoleWorkload, tc.RoleTunnel, true,
			step{at: "wl1 ingress", line: "udp 10.0.1.10:80 > 10.20.0.9:4000", reason: abi.ReasonForwarded, to: "tap0"},
			step{at: "tap0 ingress", line: tunnel + " > " + workload, reason: abi.ReasonDelivered, to: "wl1"}},
	}
	s := newSite(t, accepting)
	for _, p := range pairs {
		s.sub(t, fmt.Sprintf("%s to %s by default", p.from, p.to), func(t *testing.T) {
			s.clearFlows(t)
			st := p.step
			if !p.always {
				st.reason, st.to = abi.ReasonForwardDenied, ""
			}
			s.try(t, s.live(t), st)
		})
	}
	want := baseline()
	accepting(&want)
	for _, p := range pairs {
		open(p.from, p.to)(&want)
	}
	s.converge(t, want)
	for _, p := range pairs {
		s.sub(t, fmt.Sprintf("%s to %s where it is written", p.from, p.to), func(t *testing.T) {
			s.clearFlows(t)
			g := s.live(t)
			s.try(t, g, p.step)
			s.try(t, g, p.answer)
		})
	}
}

// TestSourcesStayTheirOwnInTunnels: the other end knows them. Only what leaves by an uplink is translated.
func TestSourcesStayTheirOwnInTunnels(t *testing.T) {
	h := newHidden(t, accepting, open(tc.RoleTunnel, tc.RoleUplink))
	same := func(at, from, line string, reason abi.Reason) {
		t.Helper()
		frame := frameOf(t, line)
		if got := h.pass(t, at, from, frame, reason).String(); got != parseFrame(frame).String() {
			t.Errorf("%s: %s became %s", at, line, got)
		}
	}
	same("wl1 ingress", "", "udp 10.0.1.10:4000 > 10.20.0.9:53", abi.ReasonForwarded)
	same("tap0 ingress", "", "udp 10.20.0.9:53 > 10.0.1.10:4000", abi.ReasonDelivered)
	same("tap0 egress", "down", "udp 192.0.2.9:4000 > 10.20.0.9:53", abi.ReasonForwarded)
	same("down egress", "tap0", "udp 10.20.0.9:53 > 192.0.2.9:4000", abi.ReasonForwarded)
	same("uplink egress", "tap0", "udp 10.20.0.9:4001 > 198.51.100.7:53", abi.ReasonForwarded) // a tunnel has no snat
	if n := len(entries[abi.FlowKey, abi.Translation](t, h.translations(t))); n != 0 {
		t.Errorf("%d translations", n)
	}
}

// TestAFlowKeepsItsTranslationWhileATunnelCarriesIt: the route moves there, and comes back.
func TestAFlowKeepsItsTranslationWhileATunnelCarriesIt(t *testing.T) {
	h := newHidden(t, accepting)
	out := frameOf(t, "udp 10.0.1.10:4000 > 198.51.100.7:53")
	first := h.pass(t, "wl1 ingress", "", out, abi.ReasonForwarded)
	if first.src.String() != self4 {
		t.Fatalf("by the uplink it left as %s", first)
	}
	h.gateway.route(t, client4+"/32", remote4, "tap0")
	nextTick(t)
	if got := h.pass(t, "wl1 ingress", "", out, abi.ReasonForwarded).String(); got != "10.0.1.10:4000 > 198.51.100.7:53" {
		t.Errorf("by the tunnel it left as %s", got)
	}
	answer := frameOf(t, "udp 198.51.100.7:53 > 10.0.1.10:4000")
	if got := h.pass(t, "tap0 ingress", "", answer, abi.ReasonDelivered).String(); got != "198.51.100.7:53 > 10.0.1.10:4000" {
		t.Errorf("the answer by the tunnel became %s", got)
	}
	dst, err := netlink.ParseIPNet(client4 + "/32")
	if err == nil {
		err = netlink.RouteDel(&netlink.Route{Dst: dst})
	}
	if err != nil {
		t.Fatal(err)
	}
	nextTick(t)
	if got := h.pass(t, "wl1 ingress", "", out, abi.ReasonForwarded).String(); got != first.String() {
		t.Errorf("by the uplink again it left as %s, before as %s", got, first)
	}
}
