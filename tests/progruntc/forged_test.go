package progruntc_test

import (
	"fmt"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestWhoForgesASourceElsewhereRevokesNothing: another interface's policy drops it, which says nothing of the flow.
func TestWhoForgesASourceElsewhereRevokesNothing(t *testing.T) {
	s := newSite(t, guarded)
	const asked, reply = "udp 192.0.2.9:4000 > 198.51.100.7:53", "udp 198.51.100.7:53 > 192.0.2.9:4000"
	walk(t, s,
		step{at: "down ingress", line: asked, reason: abi.ReasonStackForward, rule: lanDNS},
		step{at: "uplink egress", from: "down", line: asked, reason: abi.ReasonForwarded},
		step{at: "tap0 ingress", line: asked, reason: abi.ReasonDefaultDrop},
		step{at: "uplink ingress", line: reply, reason: abi.ReasonStackForward},
		step{at: "down egress", from: "uplink", line: reply, reason: abi.ReasonEstablished},
	)
}

// TestAWorkloadTellsNobodyOfFlowsOfOthers, neither by its private address nor by the node's.
func TestAWorkloadTellsNobodyOfFlowsOfOthers(t *testing.T) {
	h := newHidden(t, judged)
	const line = "tcp 198.51.100.7:9999 > 198.18.0.2:22 flags=S"
	h.pass(t, "uplink ingress", "", frameOf(t, line), abi.ReasonLocal)
	frame := errorAbout(t, w1v4, client4, 3, 3, frameOf(t, line)[14:], 0)
	h.pass(t, "wl1 ingress", "", frame, abi.ReasonSnatUntracked)
	h.pass(t, "uplink egress", "wl1", frame, abi.ReasonSnatUntracked)
}

// TestWhatWasJudgedForAWorkloadIsTranslatedElsewhere: the kernel has no route to the workload, and takes the default route.
func TestWhatWasJudgedForAWorkloadIsTranslatedElsewhere(t *testing.T) {
	h := newHidden(t)
	name, device := h.program(t, h.g, "uplink egress")
	ctx := skBuff{Ifindex: uint32(device.Index), IngressIfindex: uint32(index(t, "wl1").Index), Mark: abi.MarkDeliver}
	_, left := run(t, h.g.Programs[name], ctx, frameOf(t, "udp "+w1v4+":4000 > "+w2v4+":53"))
	if p := parseFrame(left); p.src.String() != self4 || wrongSums(left) != nil {
		t.Errorf("it left as %s", p)
	}
}

// TestWhoForgesASourceElsewhereMovesNothing: what another policy accepts of a flow does not make the flow that policy's.
func TestWhoForgesASourceElsewhereMovesNothing(t *testing.T) {
	s := newSite(t, guarded)
	g := s.live(t)
	const line = "tcp 198.51.100.7:4000 > 10.0.1.10:80 flags=S"
	for _, at := range []string{"uplink ingress", "down ingress"} {
		s.try(t, g, step{at: at, line: line, reason: abi.ReasonDelivered, to: "wl1", rule: w1Web})
		uplink := uint32(index(t, "uplink").Index)
		if where, f := s.flow(t, client4, 4000, w1v4, 80, 6); f.In != uplink || f.At != uplink || f.Rule != [2]uint32{0, w1Web} {
			t.Errorf("behind %s: in %s, %+v", at, where, f)
		}
	}
}

// TestARefusedFragmentIsFollowedByNone.
func TestARefusedFragmentIsFollowedByNone(t *testing.T) {
	h := newHidden(t, judged, func(s *tc.State) {
		never := classify.Rule{ID: 900, Name: "never", From: prefixes(client4), Protocol: 17, Action: classify.Drop}
		s.Generation.Ingress.Rules = append([]classify.Rule{never}, s.Generation.Ingress.Rules...)
	})
	sent := h.out(t, frameOf(t, "udp 10.0.1.10:4000 > 198.51.100.7:53"))
	first := frameOf(t, fmt.Sprintf("udp 198.51.100.7:53 > 198.18.0.2:%d frag=0+", sent.port(true)))
	h.pass(t, "uplink ingress", "", first, abi.ReasonRuleDrop)
	if known := entries[abi.SnatFragmentKey, abi.SnatFragment](t, h.stateMap(t, "snat-fragments", 1)); len(known) != 0 {
		t.Errorf("later fragments would follow: %v", known)
	}
}

// TestWhoAnswersInAnothersNameRevokesNothing: a flow that a new generation has not judged yet is judged by what is asked where the
// answer came in, and that is nowhere but where the answer may come from.
func TestWhoAnswersInAnothersNameRevokesNothing(t *testing.T) {
	s := newSite(t, guarded)
	g := s.live(t)
	s.try(t, g, step{at: "uplink ingress", line: "tcp 198.51.100.7:4000 > 10.0.1.10:80 flags=S", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web})
	g = s.change(t, func(g *tc.Generation) { g.Workloads[1].Ingress.Rules = nil })
	const answer = "tcp 10.0.1.10:80 > 198.51.100.7:4000 flags=SA"
	for at, reason := range map[string]abi.Reason{
		"wl2 ingress": abi.ReasonWorkloadSpoofed, "uplink ingress": abi.ReasonMartianSource, "down ingress": abi.ReasonMartianSource,
	} {
		s.try(t, g, step{at: at, line: answer}.dropped(reason))
	}
	s.try(t, g, step{at: "wl1 ingress", line: answer, reason: abi.ReasonForwarded, to: "uplink"})
}
