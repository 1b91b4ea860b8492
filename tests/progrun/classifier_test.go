package progrun_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/packet"
)

// expectation is what the reference model says about one packet: the stages of DESIGN.md over classify.Judge.
type expectation struct {
	reason abi.Reason
	rule   uint32
	policy int
	hits   []uint32
}

func expect(g xdp.Generation, p classify.Packet) expectation {
	var e expectation
	stage := func(index abi.PolicyIndex, policy classify.Policy, accepted abi.Reason) bool {
		d := classify.Judge(policy, p)
		e.hits = append(e.hits, d.Shadows...)
		if d.Reason == classify.ByRule {
			e.hits = append(e.hits, d.Rule)
		}
		if d.Action == classify.Continue {
			return false
		}
		e.policy, e.rule, e.reason = int(index), d.Rule, reasonOf(d)
		if d.Action == classify.Accept && accepted != abi.ReasonNone {
			e.reason = accepted
		}
		return true
	}
	if slices.Contains(g.Self, p.Dst) && stage(abi.PolicyFailsafe, g.Failsafe, abi.ReasonFailsafe) {
		return e
	}
	if stage(abi.PolicySystem, g.System, abi.ReasonSystem) {
		return e
	}
	stage(abi.PolicyIngress, g.Ingress, abi.ReasonNone)
	return e
}

func reasonOf(d classify.Decision) abi.Reason {
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

// frameOf is a frame that the parser must see as p.
func frameOf(t *testing.T, p classify.Packet) []byte {
	t.Helper()
	frame, err := packet.Of(p).Frame()
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return frame
}

// TestXDPAgreesWithTheReferenceModel judges 120,000 pairs of rule set and packet. SLUICE_SEED is another seed.
func TestXDPAgreesWithTheReferenceModel(t *testing.T) {
	seed := uint64(1)
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SLUICE_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const generations, packets = 60, 2000
	s := newSite(t, generation(classify.Accept))
	for range generations {
		policies := classifytest.Policies(rng)
		for len(policies) < 3 {
			policies = append(policies, classify.Policy{Name: "empty", Default: classify.Action(1 + rng.IntN(2))})
		}
		g := xdp.Generation{Failsafe: policies[0], System: policies[1], Ingress: policies[2], FlowSlots: 1024}
		if g.Ingress.Default == classify.Continue { // policy.ingress always decides
			g.Ingress.Default = classify.Drop
		}
		if rng.IntN(4) > 0 { // more often than not the first stages let something through to the rules
			g.Failsafe.Default, g.System.Default = classify.Continue, classify.Continue
		}
		list := classifytest.Packets(rng, policies[:3], packets)
		classifytest.On(policies, s.uplink, s.uplink+1000)
		for i := range list {
			list[i].Ifindex = uint32(s.uplink)
		}
		for _, p := range list[:packets/4] {
			g.Self = append(g.Self, p.Dst)
		}
		slices.SortFunc(g.Self, netip.Addr.Compare)
		g.Self = slices.Compact(g.Self)
		s.load(t, g)
		s.agrees(t, g, list)
		if t.Failed() {
			return
		}
	}
}

// agrees compares verdict, reason, rule and policy packet by packet, and the counters after all of them.
func (s *site) agrees(t *testing.T, g xdp.Generation, list []classify.Packet) {
	t.Helper()
	var ids []uint32
	for _, policy := range []classify.Policy{g.Failsafe, g.System, g.Ingress} {
		for _, r := range policy.Rules {
			ids = append(ids, r.ID)
		}
	}
	before := s.tally(t, ids...)
	want := tally{map[abi.Reason]xdp.Count{}, map[abi.Reason]xdp.Count{}, map[uint32]xdp.Count{}}
	for _, p := range list {
		frame, e := frameOf(t, p), expect(g, p)
		if got := run(t, s.live, s.uplink, frame); got != verdictOf(e.reason) {
			t.Errorf("%+v: verdict %d, want %s", p, got, e.reason)
		}
		said := s.explain(t, s.uplink, frame)
		if abi.Reason(said.Reason) != e.reason || said.Rule != e.rule || int(said.Policy) != e.policy || said.Decided != 1 {
			t.Errorf("%+v: %s by rule %d of policy %d; the model says %s by rule %d of policy %d", p,
				abi.Reason(said.Reason), said.Rule, said.Policy, e.reason, e.rule, e.policy)
		}
		add(want.Reasons, e.reason, len(frame))
		for _, id := range e.hits {
			add(want.Rules, id, len(frame))
		}
	}
	if diff := cmp.Diff(want, s.tally(t, ids...).minus(before)); diff != "" {
		t.Errorf("counters:\n%s", diff)
	}
}

func add[K comparable](m map[K]xdp.Count, k K, size int) {
	c := m[k]
	m[k] = xdp.Count{Packets: c.Packets + 1, Bytes: c.Bytes + uint64(size)}
}
