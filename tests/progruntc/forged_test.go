package progruntc_test

import (
	"testing"

	"sluice/xdp/abi"
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
	ctx := skBuff{Ifindex: uint32(device.Index), IngressIfindex: uint32(index(t, "wl1").Index), Mark: abi.MarkJudged}
	_, left := run(t, h.g.Programs[name], ctx, frameOf(t, "udp "+w1v4+":4000 > "+w2v4+":53"))
	if p := parseFrame(left); p.src.String() != self4 || wrongSums(left) != nil {
		t.Errorf("it left as %s", p)
	}
}
