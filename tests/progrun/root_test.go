package progrun_test

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// rootProgram is the one that is attached to the uplink.
func (s *site) rootProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	l, err := pin.At(s.dir).Link(s.hook)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	root, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func (s *site) emptySlot(t *testing.T) {
	t.Helper()
	slot, err := pin.At(s.dir).Slot(s.hook)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	if err := slot.Delete(uint32(0)); err != nil {
		t.Fatal(err)
	}
}

func TestRootWithoutAGeneration(t *testing.T) {
	g := strict()
	g.Failsafe.Rules = append(g.Failsafe.Rules,
		classify.Rule{ID: 41, Name: "any-port", From: prefixes("198.51.100.64/26"), Protocol: 17, Action: classify.Accept},
		classify.Rule{ID: 42, Name: "any-protocol", From: prefixes("2001:db8::/126"), Protocol: classify.AnyProtocol, Action: classify.Accept},
		classify.Rule{ID: 43, Name: "from-anywhere", Protocol: 6, Action: classify.Accept,
			Ports: []classify.PortRange{{First: 2000, Last: 2010}, {First: 3000, Last: 3000}}},
		classify.Rule{ID: 46, Name: "any-protocol-one-port", Protocol: classify.AnyProtocol, Action: classify.Accept,
			Ports: []classify.PortRange{{First: 7000, Last: 7000}}},
		classify.Rule{ID: 44, Name: "shadow", Protocol: 132, Shadow: true, Action: classify.Accept},
		classify.Rule{ID: 45, Name: "not-plain", Protocol: 132, TTL: 255, Action: classify.Accept})
	s := newSite(t, g)
	root := s.rootProgram(t)
	accept, drop := abi.ReasonFailsafe, abi.ReasonNoGenerationDrop
	far6 := src6.Next().Next().Next().Next() // outside 2001:db8::4/126
	tests := []struct {
		name  string
		frame []byte
		want  abi.Reason
	}{
		{"management", frame4(6, tcp(1, 22)), accept},
		{"another port", frame4(6, tcp(1, 23)), drop},
		{"another protocol", frame4(17, udp(1, 22)), drop},
		{"another source", from4("192.0.3.1", frame4(6, tcp(1, 22))), drop},
		{"to another box", to4("203.0.113.10", frame4(6, tcp(1, 22))), drop},
		{"a port of a range", frame4(6, tcp(1, 2010)), accept},
		{"a port behind the range", frame4(6, tcp(1, 2011)), drop},
		{"a port of the second range, over IPv6", ether(typeIP6, ip6(6, 64, far6, tcp(1, 3000))), accept},
		{"any UDP port", from4("198.51.100.64", frame4(17, udp(1, 2))), accept},
		{"a later UDP fragment", from4("198.51.100.127", ether(typeIP4, ip4Fragment(17, 100, nil, []byte{1}))), accept},
		{"just outside the prefix", from4("198.51.100.63", frame4(17, udp(1, 2))), drop},
		{"any protocol from 2001:db8::/126", ether(typeIP6, ip6(47, 64, src6.Prev().Prev().Prev().Prev(), []byte{0, 0, 8, 0})), accept},
		{"any protocol from outside of it", ether(typeIP6, ip6(47, 64, src6, []byte{0, 0, 8, 0})), drop},
		{"a port of any protocol that has them", frame4(132, sctp(1, 7000)), accept},
		{"an echo id that is no port", frame4(1, icmp(0, 0, 7000)), drop},
		{"a rule in shadow mode, and one that needs a TTL", ttl4(255, frame4(132, sctp(1, 2))), drop},
		{"ARP", ether(0x0806, make([]byte, 28)), abi.ReasonLinkControl},
		{"LLDP in a VLAN", ether(0x88cc, make([]byte, 28), 7), abi.ReasonLinkControl},
		{"ND", ether(typeIP6, ip6(58, 255, src6, icmp(135, 0, 0))), abi.ReasonLinkControl},
		{"an unknown EtherType", ether(0x8847, make([]byte, 28)), abi.ReasonUnknownEthertype},
		{"a malformed packet", ether(typeIP4, make([]byte, 28)), abi.ReasonIP4Malformed},
	}
	for _, test := range tests {
		s.checkRoot(t, root, "generation, "+test.name, test.frame, abi.ReasonMax)
	}
	s.emptySlot(t)
	for _, test := range tests {
		s.checkRoot(t, root, "closed, "+test.name, test.frame, test.want)
	}
	want := state(g, xdp.Interface{Name: "uplink", Mode: xdp.Native, FailOpen: true})
	converge(t, s.Subsystem, want) // fills the slot, too
	if id(t, s.rootProgram(t)) != id(t, root) {
		t.Error("changing xdp.fail attached another root")
	}
	s.emptySlot(t)
	for _, test := range tests {
		s.checkRoot(t, root, "open, "+test.name, test.frame, abi.ReasonNoGenerationPass)
	}
}

// checkRoot compares what the root does with want, or, for ReasonMax, with what the generation's twin says.
func (s *site) checkRoot(t *testing.T, root *ebpf.Program, what string, frame []byte, want abi.Reason) {
	t.Helper()
	if want == abi.ReasonMax {
		want = abi.Reason(s.explain(t, s.uplink, frame).Reason)
	}
	before := s.tally(t)
	if got := run(t, root, s.uplink, frame); got != verdictOf(want) {
		t.Errorf("%s: verdict %d, want %s", what, got, want)
	}
	if diff := cmp.Diff(judged(want, len(frame)), s.tally(t).minus(before)); diff != "" {
		t.Errorf("%s: counters:\n%s", what, diff)
	}
}

func id(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}
