package progrun_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// remembered says how many flows the live program keeps, on all CPUs.
func (s *site) remembered(t *testing.T) int {
	t.Helper()
	info, err := s.live.Info()
	if err != nil {
		t.Fatal(err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if about, err := m.Info(); err != nil || about.Name != "recent" {
			continue
		}
		n := 0
		for i := range m.MaxEntries() {
			flow, err := m.LookupBytes(i)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(flow, func(b byte) bool { return b != 0 }) {
				n++
			}
		}
		return n
	}
	return 0
}

// observable is strict() without its shadow rule, with which nothing is remembered.
func observable() xdp.Generation {
	g := strict()
	g.Ingress.Rules = g.Ingress.Rules[1:]
	return g
}

// TestAFlowIsJudgedTheSameWhenItComesAgain: by verdict, reason, counters and explanation, the first time and the third.
func TestAFlowIsJudgedTheSameWhenItComesAgain(t *testing.T) {
	s := newSite(t, observable())
	client := netip.MustParseAddr(outside)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, client, 40000, 53, 17), time.Second, abi.FlowNew)
	system, ingress := int(abi.PolicySystem), int(abi.PolicyIngress)
	reply := func(protocol int, l4 []byte) []byte { return from4(outside, frame4(protocol, l4)) }
	for range 3 {
		for _, test := range []judgement{
			{"failsafe", frame4(6, tcp(1, 22)), abi.ReasonFailsafe, sshID, 0, []uint32{sshID}},
			{"not for the box", to4("203.0.113.10", frame4(6, tcp(1, 22))), abi.ReasonRuleDrop, dropID, ingress, []uint32{dropID}},
			{"a neighbor", ttl4(255, frame4(6, tcp(1, 179))), abi.ReasonSystem, bgpID, system, []uint32{bgpID}},
			{"who looks like one", ttl4(254, frame4(6, tcp(1, 179))), abi.ReasonRuleDrop, dropID, ingress, []uint32{dropID}},
			{"a neighbor over IPv6", ether(typeIP6, ip6(6, 255, src6, tcp(1, 179))), abi.ReasonSystem, bgpID, system, []uint32{bgpID}},
			{"an accept rule", reply(6, tcp(1, 443)), abi.ReasonRuleAccept, acceptID, ingress, []uint32{acceptID}},
			{"another source port", reply(6, tcp(2, 443)), abi.ReasonRuleAccept, acceptID, ingress, []uint32{acceptID}},
			{"another port", reply(6, tcp(1, 444)), abi.ReasonDefaultDrop, 0, ingress, nil},
			{"another protocol", reply(17, udp(1, 443)), abi.ReasonDefaultDrop, 0, ingress, nil},
			{"a tracked flow", reply(17, udp(53, 40000)), abi.ReasonEstablished, 0, -1, nil},
			{"over IPv6", ether(typeIP6, ip6(6, 64, src6, tcp(1, 443))), abi.ReasonRuleDrop, dropID, ingress, []uint32{dropID}},
			{"the same flow in fragments", from4(outside, ether(typeIP4, ip4Fragment(6, 100, nil, make([]byte, 8)))),
				abi.ReasonFragmentDefaultDrop, 0, ingress, nil},
		} {
			s.judge(t, test)
		}
	}
	if n := s.remembered(t); n == 0 {
		t.Error("nothing was remembered: this test said nothing")
	}
}

// TestWhatChangesBesideTheGenerationIsAskedEveryTime: bans, limits and flows, of a flow whose decision is remembered.
func TestWhatChangesBesideTheGenerationIsAskedEveryTime(t *testing.T) {
	g := observable()
	g.Ingress.Rules = append(g.Ingress.Rules, limited(slow(4, false)).Ingress.Rules...)
	g.Limiters = []classify.Limiter{slow(4, false)}
	s := newSite(t, g)
	https, answer := from4(outside, frame4(6, tcp(1, 443))), from4(outside, frame4(17, udp(54, 40000)))
	for range 2 {
		s.check(t, "an accept rule", https, abi.ReasonRuleAccept)
		s.check(t, "an answer to nobody", answer, abi.ReasonDefaultDrop)
	}
	b := s.bans(t)
	set(t, b, outside+"/32", 0)
	s.judge(t, judgement{"a ban", https, abi.ReasonBanned, 0, -1, nil}) // and no rule counts it
	s.last = s.tally(t)
	set(t, b, "192.0.2.0/24", 0)
	s.check(t, "a ban of who manages", frame4(6, tcp(1, 22)), abi.ReasonFailsafe)
	s.check(t, "and again", frame4(6, tcp(1, 22)), abi.ReasonFailsafe)
	lift(t, b, outside+"/32")
	s.check(t, "no ban any more", https, abi.ReasonRuleAccept)
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, netip.MustParseAddr(outside), 40000, 54, 17), time.Second, abi.FlowNew)
	s.check(t, "an answer", answer, abi.ReasonEstablished)
	wantPassed(t, "of a burst of 4", s.passes(t, 8, dns(outside)), 4)

	s.load(t, generation(classify.Drop))
	s.last = s.tally(t)
	s.check(t, "another generation", https, abi.ReasonDefaultDrop)
}

// TestARecastGenerationRemembersNothing: it is the program of two changes before, which knew the flow.
func TestARecastGenerationRemembersNothing(t *testing.T) {
	s := newSite(t, permits(0))
	flow, first := frame4(17, udp(1, 2)), s.liveID(t)
	s.check(t, "accepted", flow, abi.ReasonRuleAccept)
	s.load(t, denies(0))
	s.load(t, generation(classify.Accept, classify.Rule{ID: 102, From: prefixes("192.0.2.0/24"), Protocol: 17, Action: classify.Drop},
		classify.Rule{ID: 103, From: prefixes("198.51.100.0/24"), Protocol: 6, Action: classify.Drop}))
	if got := s.liveID(t); got != first {
		t.Fatalf("program %d is live, want %d: this test says nothing", got, first)
	}
	s.last = s.tally(t)
	s.check(t, "not any more", flow, abi.ReasonRuleDrop)
}

// TestNothingIsRememberedWhereShadowRulesCount: each packet meets them.
func TestNothingIsRememberedWhereShadowRulesCount(t *testing.T) {
	s := newSite(t, strict())
	for range 3 {
		s.judge(t, judgement{"an accept rule", from4(outside, frame4(6, tcp(1, 443))), abi.ReasonRuleAccept, acceptID, int(abi.PolicyIngress),
			[]uint32{shadowID, acceptID}})
	}
	if n := s.remembered(t); n != 0 {
		t.Errorf("%d flows are remembered", n)
	}
}

// TestEachConditionTellsFlowsApart: a packet that a rule tells from the one before it is not taken for it.
func TestEachConditionTellsFlowsApart(t *testing.T) {
	whole := func() []byte { return from4(outside, frame4(6, tcp(1, 443))) }
	s := newSite(t, generation(classify.Accept))
	other := addVeth(t, "other", "other-tor")
	tagged := from4(outside, frame4(6, tcp(1, 443)))
	tagged = slices.Concat(tagged[:12], []byte{0x81, 0, 0, 7}, tagged[12:])
	longer := from4(outside, frame4(6, append(tcp(1, 443), 0)))
	for _, test := range []struct {
		name   string
		change func(*classify.Rule)
		meets  []byte // the rule, as whole() does not
	}{
		{"TTL", func(r *classify.Rule) { r.TTL = 9 }, ttl4(9, whole())},
		{"DSCP", func(r *classify.Rule) { r.DSCP = 1 << 46 }, field(15, 46<<2, whole())},
		{"VLAN", func(r *classify.Rule) { r.VLANs = []classify.Range{{First: 7, Last: 7}} }, tagged},
		{"length", func(r *classify.Rule) { r.Lengths = []classify.Range{{First: 41, Last: 41}} }, longer},
		{"TCP flags", func(r *classify.Rule) { r.Protocol, r.TCPMask, r.TCPFlags = 6, 4, 4 }, field(47, 4, whole())},
	} {
		rule := classify.Rule{ID: dropID, Protocol: classify.AnyProtocol, Action: classify.Drop}
		test.change(&rule)
		s.load(t, generation(classify.Accept, rule))
		for range 2 {
			s.check(t, test.name+", the rule's", test.meets, abi.ReasonRuleDrop)
			s.check(t, test.name+", another", whole(), abi.ReasonDefaultAccept)
		}
		if n := s.remembered(t); n < 2 { // more where the runs were on two CPUs
			t.Errorf("%s: %d flows are remembered", test.name, n)
		}
	}
	s.load(t, generation(classify.Accept, classify.Rule{ID: dropID, Protocol: classify.AnyProtocol, Action: classify.Drop,
		Interfaces: []classify.Interface{{Name: "uplink", Index: uint32(s.uplink)}}}))
	for range 2 {
		if a, b := run(t, s.live, s.uplink, whole()), run(t, s.live, other, whole()); a != xdpDrop || b != xdpPass {
			t.Errorf("verdict %d on the rule's interface, %d on another", a, b)
		}
	}
}
