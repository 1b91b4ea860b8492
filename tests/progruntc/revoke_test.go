package progruntc_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// change applies a change of what is wanted and returns the generation that is live then.
func (s *site) change(t *testing.T, f func(*tc.Generation)) *pin.Generation {
	t.Helper()
	want := baseline()
	f(&want.Generation)
	want.Interfaces = s.want.Interfaces
	s.converge(t, want)
	return s.live(t)
}

func without(p *classify.Policy) { p.Rules = nil }

func (s *site) wantRevoked(t *testing.T, src string, sport uint16, dst string, dport uint16, protocol uint8) {
	t.Helper()
	if where, flow := s.flow(t, src, sport, dst, dport, protocol); abi.Reason(flow.Judged) != abi.ReasonFlowRevoked {
		t.Errorf("the flow in %q is not marked: %+v", where, flow)
	}
}

// TestARevokedRuleStopsAStreamThatOnlyReceives: no packet of the first direction comes to be judged, and who sends may by a
// default of its own.
func TestARevokedRuleStopsAStreamThatOnlyReceives(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	asked := step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink", rule: w1Out}
	stream := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"}
	s.try(t, g, asked)
	s.try(t, g, stream)

	g = s.change(t, func(g *tc.Generation) {
		without(&g.Workloads[0].Egress)
		g.Workloads[0].Ingress.Default = classify.Accept
	})
	for range 3 {
		s.try(t, g, stream.dropped(abi.ReasonFlowRevoked))
	}
	s.wantRevoked(t, w1v4, 4000, client4, 53, 17)
	s.try(t, g, step{at: "uplink ingress", frame: icmpError(t, client4, w1v4, "udp 10.0.1.10:4000 > 198.51.100.7:53"), reason: abi.ReasonDelivered, to: "wl1"})
	s.try(t, g, asked.dropped(abi.ReasonDefaultDrop))

	g = s.change(t, func(g *tc.Generation) {}) // and permitted again: at once, by the other direction too
	s.try(t, g, stream)
	s.try(t, g, asked)
}

func TestEveryPolicyThatLetAFlowInCanRevokeIt(t *testing.T) {
	s := newSite(t, open(tc.RoleWorkload, tc.RoleWorkload), judged)
	web2 := step{at: "wl2 ingress", line: "tcp 10.0.1.20:4000 > 10.0.1.10:80 flags=A", reason: abi.ReasonDelivered, to: "wl1"}
	answer2 := step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 10.0.1.20:4000 flags=A", reason: abi.ReasonDelivered, to: "wl2"}
	own := step{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonRuleAccept}
	ownAnswer := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 198.18.0.2:4000", reason: abi.ReasonLocal}
	toWorkload := step{at: "wl1 egress", line: "tcp 169.254.1.1:4000 > 10.0.1.10:80 flags=A", reason: abi.ReasonRuleAccept}
	fromWorkload := step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 169.254.1.1:4000 flags=A", reason: abi.ReasonLocal}
	forwarded := step{at: "uplink egress", line: "udp 192.0.2.9:4000 > 198.51.100.7:53", from: "down", reason: abi.ReasonForwarded}
	back := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 192.0.2.9:4000", reason: abi.ReasonStackForward}
	bgp := step{at: "uplink ingress", line: "tcp 198.18.0.1:4000 > 198.18.0.2:179 flags=A", reason: abi.ReasonLocal}
	bgpBack := step{at: "uplink egress", line: "tcp 198.18.0.2:179 > 198.18.0.1:4000 flags=A", reason: abi.ReasonEstablished}
	both := func(g *tc.Generation) { g.Matrix[tc.RoleWorkload][tc.RoleWorkload] = true }
	for _, test := range []struct {
		name         string
		first, reply step
		revoke       func(*tc.Generation)
	}{
		{"policy.ingress", web("A"), webReply("A"), func(g *tc.Generation) { without(&g.Ingress) }},
		{"the receiver's ingress", web("A"), webReply("A"), func(g *tc.Generation) { without(&g.Workloads[0].Ingress) }},
		{"the matrix", web("A"), webReply("A"), func(g *tc.Generation) { g.Matrix[tc.RoleUplink][tc.RoleWorkload] = false }},
		{"between workloads, the sender's egress", web2, answer2, func(g *tc.Generation) { both(g); without(&g.Workloads[1].Egress) }},
		{"between workloads, the receiver's ingress", web2, answer2, func(g *tc.Generation) { both(g); without(&g.Workloads[0].Ingress) }},
		{"between workloads, the matrix", web2, answer2, func(*tc.Generation) {}},
		{"policy.egress", own, ownAnswer, func(g *tc.Generation) { both(g); without(&g.Egress) }},
		{"the node to a workload", toWorkload, fromWorkload, func(g *tc.Generation) { both(g); without(&g.Workloads[0].Ingress) }},
		{"what the kernel forwards, the matrix", forwarded, back, func(g *tc.Generation) { g.Matrix[tc.RoleDownstream][tc.RoleUplink] = false }},
		{"system", bgp, bgpBack, func(g *tc.Generation) { without(&g.System) }},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			g := s.change(t, both)
			s.try(t, g, test.first)
			s.try(t, g, test.reply)
			g = s.change(t, test.revoke)
			s.try(t, g, test.reply.dropped(abi.ReasonFlowRevoked))
			s.try(t, g, test.reply.dropped(abi.ReasonFlowRevoked))
			g = s.change(t, both)
			s.try(t, g, test.reply)
			s.try(t, g, test.first)
		})
	}
}

// TestWhatDropsTheFirstDirectionDropsTheOther, at once and in the same generation that did.
func TestWhatDropsTheFirstDirectionDropsTheOther(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	s.try(t, g, web("S"))
	s.try(t, g, webReply("A"))
	g = s.change(t, func(g *tc.Generation) { without(&g.Workloads[0].Ingress) })
	s.try(t, g, web("A").dropped(abi.ReasonDefaultDrop))
	s.wantRevoked(t, client4, 9999, w1v4, 80, 6)
	s.try(t, g, webReply("A").dropped(abi.ReasonFlowRevoked))
}

// TestASwapJudgesAnew: what is remembered is of one generation, its rules and its counters.
func TestASwapJudgesAnew(t *testing.T) {
	const another = 95
	s := newSite(t)
	g := s.live(t)
	for range 3 {
		s.try(t, g, web("A"))
	}
	_, was := s.webFlow(t)
	g = s.change(t, func(g *tc.Generation) { g.Workloads[0].Ingress.Rules[0].ID = another })
	s.try(t, g, webReply("A")) // which has the first direction judged, and counts nothing
	_, asked := s.webFlow(t)
	if asked.Epoch == was.Epoch || asked.Flags&abi.FlowAsk == 0 {
		t.Errorf("after the reply: %+v", asked)
	}
	for range 2 {
		s.try(t, g, web("A"))
	}
	_, now := s.webFlow(t)
	if now.Epoch != asked.Epoch || now.Flags&abi.FlowAsk != 0 || now.Rule[1] != another || now.SinceNs != was.SinceNs {
		t.Errorf("then: %+v", now)
	}
	hits, err := xdp.RuleHits(s.dir)
	if err != nil || hits[w1Web].Packets != 3 || hits[another].Packets != 2 {
		t.Errorf("counters of %d packets and %d: %v", hits[w1Web].Packets, hits[another].Packets, err)
	}
	s.change(t, func(*tc.Generation) {})
	if s.try(t, s.live(t), webReply("A")); true {
		if _, again := s.webFlow(t); again.Epoch != was.Epoch {
			t.Errorf("a generation that comes back has another epoch: %d, %d", again.Epoch, was.Epoch)
		}
	}
}

// TestAFlowWhosePolicyLooksAtPacketsIsLeftToThem: its replies are not judged by a packet that was never sent.
func TestAFlowWhosePolicyLooksAtPacketsIsLeftToThem(t *testing.T) {
	syn := func(g *tc.Generation) { // as an operator writes "new connections only", with what goes on below it
		g.Workloads[0].Ingress.Rules[0].TCPMask, g.Workloads[0].Ingress.Rules[0].TCPFlags = 0x02, 0x02
	}
	s := newSite(t, func(want *tc.State) { syn(&want.Generation) })
	g := s.live(t)
	s.try(t, g, web("S"))
	s.try(t, g, webReply("A"))
	g = s.change(t, func(g *tc.Generation) { syn(g); g.Egress.Rules = g.Egress.Rules[1:] })
	s.try(t, g, webReply("A"))
	g = s.change(t, func(*tc.Generation) {})
	s.try(t, g, web("A")) // a policy that looks at flows
	g = s.change(t, syn)
	s.try(t, g, webReply("A").dropped(abi.ReasonFlowRevoked)) // in doubt not,
	s.try(t, g, web("S"))
	s.try(t, g, webReply("A")) // until its own packet settles it
}

// TestAWorkloadOnTheKernelsPath is judged by the same policies, and its flows are tracked where they leave.
func TestAWorkloadOnTheKernelsPath(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	s.onStack(t, g, "wl1", w1v4)
	s.try(t, g, step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.66:53", reason: abi.ReasonRuleDrop, rule: w1Bad})
	s.try(t, g, step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonStackPath, rule: w1Out})
	if where, _ := s.flow(t, w1v4, 4000, client4, 53, 17); where != "" {
		t.Error("it is tracked before it leaves")
	}
	s.try(t, g, step{at: "uplink egress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", from: "wl1", reason: abi.ReasonForwarded})
	where, flow := s.flow(t, w1v4, 4000, client4, 53, 17)
	if where != "fresh-out" || flow.Owner != uint32(index(t, "wl1").Index) || flow.At != uint32(index(t, "uplink").Index)|abi.FlowAtEgress {
		t.Errorf("in %q: %+v", where, flow)
	}
	answer := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonStackPath}
	s.try(t, g, answer)
	if mark := s.send(t, g, answer).mark; mark != abi.MarkDeliver {
		t.Errorf("mark %#x: the egress hook would judge it again", mark)
	}
	s.try(t, g, step{at: "wl1 egress", line: answer.line, from: "uplink", mark: abi.MarkDeliver, reason: abi.ReasonJudged})

	g = s.change(t, func(g *tc.Generation) { without(&g.Workloads[0].Egress) })
	s.onStack(t, g, "wl1", w1v4)
	s.try(t, g, answer.dropped(abi.ReasonFlowRevoked))
}

// onStack sets path: stack where a generation knows of it.
func (s *site) onStack(t *testing.T, g *pin.Generation, name, address string) {
	t.Helper()
	s.flag(t, g, name, abi.InterfaceStack)
	key := netip.MustParseAddr(address).As16()
	var w abi.Workload
	if err := g.Maps["workloads"].Lookup(key, &w); err != nil {
		t.Fatal(err)
	}
	w.Flags |= abi.InterfaceStack
	if err := g.Maps["workloads"].Update(key, w, ebpf.UpdateExist); err != nil {
		t.Fatal(err)
	}
}

func (s *site) flag(t *testing.T, g *pin.Generation, name string, flag uint8) {
	t.Helper()
	ifindex := uint32(index(t, name).Index)
	var entry abi.Interface
	if err := g.Maps["interfaces"].Lookup(ifindex, &entry); err != nil {
		t.Fatal(err)
	}
	entry.Flags |= flag
	near := abi.InterfaceNear{Ifindex: ifindex, Interface: entry}
	err := errors.Join(g.Maps["interfaces"].Update(ifindex, entry, ebpf.UpdateExist),
		g.Maps["interfaces_near"].Update(ifindex%abi.InterfaceSlots, near, ebpf.UpdateExist))
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsToBePacedBearsAMark(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	s.flag(t, g, "wl1", abi.InterfacePaced)
	for _, test := range []struct {
		line string
		mark uint32
	}{
		{"udp 10.0.1.10:4000 > 198.51.100.7:53", abi.MarkPaced | abi.MarkJudged},
		{"udp 10.0.1.10:4000 > 203.0.113.9:53", abi.MarkPaced}, // left to the kernel
	} {
		if mark := s.send(t, g, step{at: "wl1 ingress", line: test.line, mark: abi.MarkUnderlay}).mark; mark != test.mark {
			t.Errorf("%s: mark %#x, want %#x", test.line, mark, test.mark)
		}
	}
	s.flag(t, g, "uplink", abi.InterfacePaced)
	if mark := s.send(t, g, web("S")).mark; mark != 0 {
		t.Errorf("mark %#x goes along into a workload", mark)
	}
}
