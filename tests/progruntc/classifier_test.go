package progruntc_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/packet"
)

// TestTcxAgreesWithTheReferenceModel judges 105,000 pairs of policy and packet, each policy as that of a workload. The
// twin runs, so that no flow excuses anything. SLUICE_SEED is another seed.
func TestTcxAgreesWithTheReferenceModel(t *testing.T) {
	seed := uint64(1)
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SLUICE_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const generations, packets = 15, 7000
	workloads := func(want *tc.State) { // of the other roles the verifier would have to see every program of every generation
		want.Interfaces = slices.DeleteFunc(want.Interfaces, func(i tc.Interface) bool { return i.Role != tc.RoleWorkload })
	}
	s := newSite(t, workloads)
	for range generations {
		policies := classifytest.Policies(rng)
		classifytest.On(policies, index(t, "wl1").Index, index(t, "wl2").Index)
		want := baseline()
		workloads(&want)
		for i := range want.Generation.Workloads {
			w := &want.Generation.Workloads[i]
			w.Ingress, w.Egress = policies[2*i%len(policies)], policies[(2*i+1)%len(policies)]
		}
		s.converge(t, want)
		s.agrees(t, want.Generation.Policies(), classifytest.Packets(rng, policies, packets))
		if t.Failed() {
			return
		}
	}
}

// agrees asks the egress hooks of the workloads, which judge their ingress policies whatever the addresses are.
func (s *site) agrees(t *testing.T, policies []classify.Policy, list []classify.Packet) {
	t.Helper()
	g := s.live(t)
	twin, explained := s.twin(t, g, "wl1 egress", "workload_egress"), g.Maps["explained"]
	hooks := []uint32{uint32(index(t, "wl1").Index), uint32(index(t, "wl2").Index)}
	for i, p := range list {
		frame := frameOfPacket(t, p)
		at := i % len(hooks)
		p.Ifindex = hooks[at]
		number := int(abi.PolicyWorkloads) + 2*at
		s.agree(t, twin, explained, skBuff{Ifindex: hooks[at]}, number, policies[number], p, frame)
	}
}

func (s *site) agree(t *testing.T, twin *ebpf.Program, explained *ebpf.Map, ctx skBuff, number int,
	policy classify.Policy, p classify.Packet, frame []byte) {
	t.Helper()
	if _, err := twin.Run(&ebpf.RunOptions{Data: frame, Context: ctx}); err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	var said abi.Explanation
	if err := explained.Lookup(uint32(0), &said); err != nil {
		t.Fatal(err)
	}
	model := classify.Judge(policy, p)
	want := reasonOf(model)
	if want == abi.ReasonDefaultDrop && isError(p) { // the box's own need no flow
		want = abi.ReasonICMPError
	}
	decided := uint32(1)
	if want == abi.ReasonNone {
		decided = 0
	}
	if abi.Reason(said.Reason) != want || said.Rule != model.Rule || said.Decided != decided || decided == 1 && int(said.Policy) != number {
		t.Errorf("%+v: %s by rule %d of policy %d; the model says %s by rule %d of policy %d", p,
			abi.Reason(said.Reason), said.Rule, said.Policy, want, model.Rule, number)
	}
}

// isError says whether a packet is an ICMP error that may quote another.
func isError(p classify.Packet) bool {
	if p.Src.Is4() {
		return p.HasICMP && (p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12)
	}
	return p.HasICMP && p.ICMPType >= 1 && p.ICMPType <= 4
}

func reasonOf(d classify.Decision) abi.Reason {
	if d.Action == classify.Continue {
		return abi.ReasonNone
	}
	reasons := map[classify.Reason][2]abi.Reason{ // accepted, dropped
		classify.ByRule:         {abi.ReasonRuleAccept, abi.ReasonRuleDrop},
		classify.ByDefault:      {abi.ReasonDefaultAccept, abi.ReasonDefaultDrop},
		classify.ByFragment:     {abi.ReasonFragmentDefaultAccept, abi.ReasonFragmentDefaultDrop},
		classify.ByFragmentRule: {abi.ReasonFragmentAccept, abi.ReasonFragmentDrop},
	}[d.Reason]
	if d.Action == classify.Accept {
		return reasons[0]
	}
	return reasons[1]
}

// frameOfPacket is a frame that the parser must see as p.
func frameOfPacket(t *testing.T, p classify.Packet) []byte {
	t.Helper()
	frame, err := packet.Of(p).Frame()
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return frame
}

// TestEveryPolicyOfAGenerationIsJudgedByItsOwnIndex would show policies mixed up: each accepts one port of its own.
func TestEveryPolicyOfAGenerationIsJudgedByItsOwnIndex(t *testing.T) {
	accept := func(name string, id uint32, port uint16) classify.Policy {
		return classify.Policy{Name: name, Default: classify.Drop, Rules: []classify.Rule{
			{ID: id, Name: "own", Protocol: 17, Ports: ports(port, port), Action: classify.Accept}}}
	}
	s := newSite(t, judged, func(want *tc.State) {
		g := &want.Generation
		g.Ingress, g.Egress = accept("ingress", 101, 1001), accept("egress", 102, 1002)
		for i := range g.Workloads {
			g.Workloads[i].Ingress = accept(fmt.Sprint("ingress", i), uint32(110+i), uint16(1010+i))
			g.Workloads[i].Egress = accept(fmt.Sprint("egress", i), uint32(120+i), uint16(1020+i))
		}
	})
	walk(t, s,
		step{at: "uplink ingress", line: "udp 198.51.100.7:9 > 198.18.0.2:1001", reason: abi.ReasonLocal, rule: 101},
		step{at: "uplink egress", line: "udp 198.18.0.2:9 > 198.51.100.7:1002", reason: abi.ReasonRuleAccept, rule: 102},
		step{at: "wl1 egress", line: "udp 169.254.1.1:9 > 10.0.1.10:1010", reason: abi.ReasonRuleAccept, rule: 110},
		step{at: "wl2 egress", line: "udp 169.254.1.1:9 > 10.0.1.20:1011", reason: abi.ReasonRuleAccept, rule: 111},
		step{at: "wl1 ingress", line: "udp 10.0.1.10:9 > 198.51.100.7:1020", reason: abi.ReasonForwarded, to: "uplink", rule: 120},
		step{at: "wl2 ingress", line: "udp 10.0.1.20:9 > 198.51.100.7:1021", reason: abi.ReasonForwarded, to: "uplink", rule: 121},
		step{at: "wl2 ingress", line: "udp 10.0.1.20:9 > 198.51.100.7:1020", reason: abi.ReasonDefaultDrop},
	)
	hits, err := xdp.RuleHits(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint32{101, 102, 110, 111, 120, 121} {
		if hits[id].Packets != 1 {
			t.Errorf("rule %d counted %d packets, want 1", id, hits[id].Packets)
		}
	}
}
