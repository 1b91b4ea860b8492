package progrun_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Ids of the rules below; those of rules that only their own test has are above 40.
const (
	sshID    = 10 // failsafe
	bgpID    = 20 // system
	dropID   = 30
	acceptID = 31
	shadowID = 32
)

// strict accepts nothing but what a stage before the default knows: management by ssh from 192.0.2.0/24, a system rule
// for BGP with TTL 255, one dropped source, and HTTPS.
func strict() xdp.Generation {
	g := generation(classify.Drop,
		classify.Rule{ID: shadowID, Protocol: 6, Action: classify.Drop, Shadow: true},
		classify.Rule{ID: dropID, From: prefixes("192.0.2.0/24", "2001:db8::/64"), Protocol: classify.AnyProtocol,
			NotTo: prefixes("198.51.100.0/24"), Action: classify.Drop},
		classify.Rule{ID: acceptID, Protocol: 6, Ports: []classify.PortRange{{First: 443, Last: 443}}, Action: classify.Accept},
	)
	g.Self = []netip.Addr{dst4, dst6}
	g.Failsafe.Rules = []classify.Rule{{ID: sshID, Name: "ssh", From: prefixes("192.0.2.0/24"), Protocol: 6,
		Ports: []classify.PortRange{{First: 22, Last: 22}}, Action: classify.Accept}}
	g.System.Rules = []classify.Rule{{ID: bgpID, Name: "bgp", From: prefixes("192.0.2.0/24", "2001:db8::7/128"), Protocol: 6,
		Ports: []classify.PortRange{{First: 179, Last: 179}}, TTL: 255, Action: classify.Accept}}
	return g
}

// from4 and to4 rewrite addresses of an IPv4 frame without tags.
func from4(a string, frame []byte) []byte {
	copy(frame[26:], netip.MustParseAddr(a).AsSlice())
	return frame
}
func to4(a string, frame []byte) []byte {
	copy(frame[30:], netip.MustParseAddr(a).AsSlice())
	return frame
}

func ttl4(ttl byte, frame []byte) []byte { frame[22] = ttl; return frame }

func frame4(protocol int, payload []byte) []byte { return ether(typeIP4, ip4(protocol, nil, payload)) }

const outside = "198.51.100.77" // an address that no rule of strict knows

// opened is a flow as the test thinks of it: its key, and the end that opened it.
type opened struct {
	abi.FlowKey
	by int
}

// key is that of the flow whose first packet goes from src to dst.
func key(src, dst netip.Addr, sport, dport int, protocol uint8) opened {
	k, by := abi.KeyOf(src, dst, uint16(sport), uint16(dport), protocol)
	return opened{k, by}
}

// putFlow writes what tc would have written of a flow that the inside opened.
func putFlow(t *testing.T, m *ebpf.Map, k opened, age time.Duration, state abi.FlowState) {
	t.Helper()
	writeFlow(t, m, k, age, abi.Flow{State: uint8(state), Flags: abi.FlowInside})
}

func writeFlow(t *testing.T, m *ebpf.Map, k opened, age time.Duration, flow abi.Flow) {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	flow.LastNs, flow.Opener = uint64(now.Nano())-uint64(age), uint8(k.by)
	if err := m.Put(k.FlowKey, flow); err != nil {
		t.Fatal(err)
	}
}

type judgement struct {
	name   string
	frame  []byte
	want   abi.Reason
	rule   uint32 // that decided
	policy int    // that decided; -1: none
	hits   []uint32
}

func TestStagesJudgeInTheirOrder(t *testing.T) {
	s := newSite(t, strict())
	out, in := s.openMap(t, "fresh-out", 3), s.openMap(t, "fresh-in", 3)
	client := netip.MustParseAddr(outside)
	// The box asked a resolver; its workload's SSH goes on; old ones have expired.
	putFlow(t, out, key(dst4, client, 40000, 53, 17), time.Second, abi.FlowNew)
	putFlow(t, out, key(dst4, client, 40001, 53, 17), 61*time.Second, abi.FlowNew)
	putFlow(t, out, key(dst4, client, 40002, 53, 17), 61*time.Second, abi.FlowReplied)
	putFlow(t, out, key(dst4, client, 40003, 80, 6), 31*time.Second, abi.FlowClosed)
	putFlow(t, out, key(dst4, client, 40004, 80, 6), 7400*time.Second, abi.FlowEstablished)
	putFlow(t, out, key(dst4, src4, 40000, 53, 17), time.Second, abi.FlowNew)
	putFlow(t, out, key(dst4, client, 99, 0, 1), time.Second, abi.FlowNew)
	writeFlow(t, in, key(client, dst4, 5000, 443, 6), time.Second, abi.Flow{State: uint8(abi.FlowReplied)})
	// What they put on the wire, as an ICMP error quotes it.
	query := to4(outside, from4(dst4.String(), frame4(17, udp(40000, 53))))[14:]
	answer := to4(outside, from4(dst4.String(), frame4(6, tcp(443, 5000))))[14 : 14+28]
	stray := to4(outside, from4(dst4.String(), frame4(17, udp(40009, 53))))[14:]
	reply := func(protocol int, l4 []byte) []byte { return from4(outside, frame4(protocol, l4)) }
	system, ingress := int(abi.PolicySystem), int(abi.PolicyIngress)

	tests := []judgement{
		{"failsafe beats a drop rule", frame4(6, tcp(1, 22)), abi.ReasonFailsafe, sshID, 0, []uint32{sshID}},
		{"failsafe is for the box alone", to4("203.0.113.10", frame4(6, tcp(1, 22))), abi.ReasonRuleDrop, dropID, ingress,
			[]uint32{shadowID, dropID}},
		{"failsafe asks for its port", frame4(6, tcp(1, 23)), abi.ReasonRuleDrop, dropID, ingress, []uint32{shadowID, dropID}},
		{"a system rule beats a drop rule", ttl4(255, frame4(6, tcp(1, 179))), abi.ReasonSystem, bgpID, system, []uint32{bgpID}},
		{"a system rule asks for its TTL", ttl4(254, frame4(6, tcp(1, 179))), abi.ReasonRuleDrop, dropID, ingress,
			[]uint32{shadowID, dropID}},
		{"a system rule over IPv6", ether(typeIP6, ip6(6, 255, src6, tcp(1, 179))), abi.ReasonSystem, bgpID, system, []uint32{bgpID}},
		{"a drop rule over IPv6", ether(typeIP6, ip6(17, 64, src6, udp(1, 2))), abi.ReasonRuleDrop, dropID, ingress, []uint32{dropID}},
		{"a shadow rule counts and goes on", reply(6, tcp(1, 443)), abi.ReasonRuleAccept, acceptID, ingress,
			[]uint32{shadowID, acceptID}},
		{"nothing accepts it", reply(17, udp(1, 2)), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"a drop rule spares what it excludes", to4(outside, frame4(17, udp(1, 2))), abi.ReasonDefaultDrop, 0, ingress, nil},

		{"a reply to the box's own flow", reply(17, udp(53, 40000)), abi.ReasonEstablished, 0, -1, nil},
		{"a reply that came too late", reply(17, udp(53, 40001)), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"a later packet of a longer exchange", reply(17, udp(53, 40002)), abi.ReasonEstablished, 0, -1, nil},
		{"a reply after the end of a TCP flow", reply(6, tcp(80, 40003)), abi.ReasonDefaultDrop, 0, ingress, []uint32{shadowID}},
		{"a reply to a TCP flow of two hours", reply(6, tcp(80, 40004)), abi.ReasonEstablished, 0, -1, []uint32{shadowID}},
		{"a drop rule beats a flow", frame4(17, udp(53, 40000)), abi.ReasonRuleDrop, dropID, ingress, []uint32{dropID}},
		{"an echo reply", reply(1, icmp(0, 0, 99)), abi.ReasonEstablished, 0, -1, nil},
		{"an echo reply to nobody", reply(1, icmp(0, 0, 98)), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"an echo request is no reply", reply(1, icmp(8, 0, 99)), abi.ReasonDefaultDrop, 0, ingress, nil},

		{"too big, about the box's own packet", reply(1, icmp(3, 4, 0, query...)), abi.ReasonICMPError, 0, -1, nil},
		{"too big, about a reply to a flow from outside", reply(1, icmp(3, 4, 0, answer...)), abi.ReasonICMPError, 0, -1, nil},
		{"time exceeded", reply(1, icmp(11, 0, 0, query...)), abi.ReasonICMPError, 0, -1, nil},
		{"an error is answered even to a dropped source", frame4(1, icmp(3, 4, 0, query...)), abi.ReasonICMPError, 0, -1, nil},
		{"an error about a flow that is none", reply(1, icmp(3, 4, 0, stray...)), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"an error about what others sent", to4("203.0.113.10", reply(1, icmp(3, 4, 0, query...))), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"an error that quotes too little", reply(1, icmp(3, 4, 0, query[:20]...)), abi.ReasonDefaultDrop, 0, ingress, nil},
		{"a redirect is never trusted", reply(1, icmp(5, 1, 0, query...)), abi.ReasonDefaultDrop, 0, ingress, nil},

		{"a later fragment meets the port rule's doubt", from4(outside, ether(typeIP4, ip4Fragment(6, 100, nil, make([]byte, 8)))),
			abi.ReasonFragmentDefaultDrop, 0, ingress, []uint32{shadowID}},
		{"a later fragment no port rule could match", from4(outside, ether(typeIP4, ip4Fragment(17, 100, nil, make([]byte, 8)))),
			abi.ReasonDefaultDrop, 0, ingress, nil},
		{"ND from a router away", ether(typeIP6, ip6(58, 254, src6, icmp(135, 0, 0))), abi.ReasonRuleDrop, dropID, ingress,
			[]uint32{dropID}},
		{"MLD from a router away", ether(typeIP6, ip6(58, 1, src6, icmp(131, 0, 0))), abi.ReasonRuleDrop, dropID, ingress,
			[]uint32{dropID}},
		{"ND on the link", ether(typeIP6, ip6(58, 255, src6, icmp(135, 0, 0))), abi.ReasonLinkControl, 0, -1, nil},
		{"ND in a fragment", ether(typeIP6, ip6(44, 255, src6, ip6Frag(58, 1, icmp(135, 0, 0)))), abi.ReasonRuleDrop, dropID,
			ingress, []uint32{dropID}},
	}
	for _, test := range tests {
		s.judge(t, test)
	}
}

func (s *site) judge(t *testing.T, test judgement) {
	t.Helper()
	ids := []uint32{sshID, bgpID, dropID, acceptID, shadowID}
	before := s.tally(t, ids...)
	if got := run(t, s.live, s.uplink, test.frame); got != verdictOf(test.want) {
		t.Errorf("%s: verdict %d, want %s", test.name, got, test.want)
	}
	counted := s.tally(t, ids...)
	if diff := cmp.Diff(judged(test.want, len(test.frame), test.hits...), counted.minus(before)); diff != "" {
		t.Errorf("%s: counters:\n%s", test.name, diff)
	}
	got, err := s.Explain(t.Context(), "uplink", test.frame)
	if err != nil {
		t.Fatalf("%s: %v", test.name, err)
	}
	want := xdp.Explanation{Verdict: test.want.Fate(), Reason: test.want, Rule: test.rule, Policy: test.policy, Ifindex: uint32(s.uplink)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: explain:\n%s", test.name, diff)
	}
	if diff := cmp.Diff(counted, s.tally(t, ids...)); diff != "" {
		t.Errorf("%s: explain counted:\n%s", test.name, diff)
	}
}

func TestFragmentsFollowThePolicy(t *testing.T) {
	https := classify.Rule{ID: acceptID, Protocol: 6, Ports: []classify.PortRange{{First: 443, Last: 443}}, Action: classify.Accept}
	later := ether(typeIP4, ip4Fragment(6, 100, nil, make([]byte, 8)))
	first := ether(typeIP4, ip4Fragment(6, 0x2000, nil, tcp(1, 443)))
	s := newSite(t, generation(classify.Accept))
	for _, test := range []struct {
		def          classify.Action
		fragments    classify.Fragments
		first, later abi.Reason
	}{
		{classify.Accept, classify.FragDefault, abi.ReasonRuleAccept, abi.ReasonFragmentDefaultAccept},
		{classify.Drop, classify.FragDefault, abi.ReasonRuleAccept, abi.ReasonFragmentDefaultDrop},
		{classify.Drop, classify.FragAccept, abi.ReasonRuleAccept, abi.ReasonFragmentAccept},
		{classify.Accept, classify.FragDrop, abi.ReasonFragmentDrop, abi.ReasonFragmentDrop},
	} {
		g := generation(test.def, https)
		g.Ingress.Fragments = test.fragments
		s.load(t, g)
		s.check(t, "first fragment", first, test.first)
		s.check(t, "later fragment", later, test.later)
	}
}

func TestEstablishedIsNotAskedWhereTheDefaultAccepts(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, src4, 40000, 53, 17), time.Second, abi.FlowNew)
	s.check(t, "a reply", frame4(17, udp(53, 40000)), abi.ReasonDefaultAccept)
}

func TestAnUnknownInterfaceCountsInSlotZero(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	before := s.tally(t)
	frame := frame4(17, udp(1, 2))
	run(t, s.live, ifindex(t, "tor"), frame)
	want := tally{map[abi.Reason]xdp.Count{}, judged(abi.ReasonDefaultAccept, len(frame)).Reasons, map[uint32]xdp.Count{}}
	if diff := cmp.Diff(want, s.tally(t).minus(before)); diff != "" {
		t.Error(diff)
	}
}
