package progruntc_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"sluice/tc"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// Whatever a workload brings along, a table of one entry each that has no room is enough to ask the verifier for every program
// anew.
func TestWorkloadsThatAreAddedOneByOneAreWrittenIntoTheGenerationOfBefore(t *testing.T) {
	const many = 60
	s := newSite(t)
	for i := range many {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("many%d", i)}, PeerName: fmt.Sprintf("peer%d", i)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Fatal(err)
		}
	}
	programs := map[ebpf.ProgramID]int{}
	seen := func() {
		t.Helper()
		for _, kind := range []string{"tcx-ingress", "tcx-egress"} {
			id, err := pin.At(s.dir).Live(pin.Hook{Kind: kind, Interface: "wl1"})
			if err != nil {
				t.Fatal(err)
			}
			programs[id]++
		}
	}
	seen()
	v4, v6 := netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00:2::1")
	want := s.want
	for i := range many {
		want = withAnother(want, i, v4, v6)
		v4, v6 = v4.Next(), v6.Next()
		s.converge(t, want)
		seen()
	}
	if len(programs) != 4 {
		t.Errorf("%d programs were live at two hooks, want two of each: %v", len(programs), programs)
	}
	for _, times := range programs {
		if times < many/2 {
			t.Errorf("a program was live only %d times: %v", times, programs)
		}
	}
}

// withAnother is want and a workload with all that one may have: rules, a bandwidth and an address for SNAT of its own.
// A prefix of each family is announced for it.
func withAnother(want tc.State, i int, v4, v6 netip.Addr) tc.State {
	name := fmt.Sprintf("many%d", i)
	first := uint32(100 + 3*i)
	g := &want.Generation
	g.SNATAddresses = append(g.SNATAddresses, tc.SNATAddress{IPv4: v4, IPv6: v6})
	g.Announced = append(g.Announced, netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128))
	g.Paced = append(g.Paced, tc.Paced{Interface: name, Rate: 1e9})
	g.Workloads = append(g.Workloads, tc.Workload{Name: name, Interface: name, Addresses: []netip.Addr{v4, v6},
		Ingress: classify.Policy{Name: name + "/ingress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: first, Name: "web", From: prefixes("198.51.100.0/24", "2001:db8:7::/64"), Protocol: 6, Ports: ports(80, 80), Action: classify.Accept},
			{ID: first + 1, Name: "own", From: []netip.Prefix{netip.PrefixFrom(v4.Next(), 32)}, Protocol: 17, Ports: ports(53, 53), Action: classify.Accept},
		}},
		Egress: classify.Policy{Name: name + "/egress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: first + 2, Name: "out", To: prefixes("198.51.100.0/24"), Protocol: classify.AnyProtocol, Action: classify.Accept},
		}},
	})
	want.Interfaces = append(want.Interfaces, tc.Interface{Name: name, Role: tc.RoleWorkload,
		SNAT: tc.SNAT{IPv4: true, IPv6: true, Address: uint16(i + 1)}})
	return want
}
