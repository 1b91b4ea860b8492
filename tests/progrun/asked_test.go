package progrun_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestAPolicyIsAskedWheneverItHasSomethingToSay: what is passed over for speed is what would have said nothing.
func TestAPolicyIsAskedWheneverItHasSomethingToSay(t *testing.T) {
	const id = 41
	rule := func(change func(*classify.Rule)) classify.Policy {
		r := classify.Rule{ID: id, Name: "one", Protocol: classify.AnyProtocol, Action: classify.Accept}
		change(&r)
		return classify.Policy{Name: "system", Rules: []classify.Rule{r}}
	}
	frame := frame4(17, udp(1, 2))
	later := ether(typeIP4, ip4Fragment(17, 100, nil, make([]byte, 8)))
	s := newSite(t, generation(classify.Accept))
	for _, test := range []struct {
		name   string
		system classify.Policy
		frame  []byte
		want   abi.Reason
		hits   []uint32
	}{
		{"nothing", classify.Policy{Name: "system"}, frame, abi.ReasonDefaultAccept, nil},
		{"a rule for everything", rule(func(*classify.Rule) {}), frame, abi.ReasonSystem, []uint32{id}},
		{"a rule for the source", rule(func(r *classify.Rule) { r.From = prefixes("192.0.2.0/24") }), frame, abi.ReasonSystem, []uint32{id}},
		{"a rule for the destination", rule(func(r *classify.Rule) { r.To = prefixes(dst4.String() + "/32") }), frame, abi.ReasonSystem, []uint32{id}},
		{"a rule for both", rule(func(r *classify.Rule) {
			r.From, r.To = prefixes("192.0.2.0/24"), prefixes(dst4.String()+"/32")
		}), frame, abi.ReasonSystem, []uint32{id}},
		{"a rule for others", rule(func(r *classify.Rule) { r.From = prefixes("203.0.113.0/24") }), frame, abi.ReasonDefaultAccept, nil},
		{"a rule in shadow mode", rule(func(r *classify.Rule) { r.Shadow = true }), frame, abi.ReasonDefaultAccept, []uint32{id}},
		{"a default", classify.Policy{Name: "system", Default: classify.Drop}, frame, abi.ReasonDefaultDrop, nil},
		{"no fragments", classify.Policy{Name: "system", Fragments: classify.FragDrop}, later, abi.ReasonFragmentDrop, nil},
		{"no fragments, and a whole packet", classify.Policy{Name: "system", Fragments: classify.FragDrop}, frame, abi.ReasonDefaultAccept, nil},
	} {
		g := generation(classify.Accept)
		g.System = test.system
		s.load(t, g)
		before := s.tally(t, id)
		run(t, s.live, s.uplink, test.frame)
		if diff := cmp.Diff(judged(test.want, len(test.frame), test.hits...), s.tally(t, id).minus(before)); diff != "" {
			t.Errorf("%s: counters:\n%s", test.name, diff)
		}
		if got := abi.Reason(s.explain(t, s.uplink, test.frame).Reason); got != test.want {
			t.Errorf("%s: explain says %s, want %s", test.name, got, test.want)
		}
	}
}

// TestEveryOwnAddressIsKnown: a bit says of most addresses that they are foreign, and never of one's own.
func TestEveryOwnAddressIsKnown(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	random := func(prefix string) netip.Addr {
		a := netip.MustParsePrefix(prefix).Addr().AsSlice()
		binary.BigEndian.PutUint16(a[len(a)-2:], uint16(rng.Uint32()))
		out, _ := netip.AddrFromSlice(a)
		return out
	}
	g := generation(classify.Drop)
	own := map[netip.Addr]bool{}
	for range 40 {
		own[random("198.18.0.0/15")], own[random("2001:db8::/64")] = true, true
	}
	for a := range own {
		g.Self = append(g.Self, a)
	}
	g.Failsafe.Rules = []classify.Rule{{ID: sshID, Name: "ssh", Protocol: 6, Ports: []classify.PortRange{{First: 22, Last: 22}}, Action: classify.Accept}}
	s := newSite(t, g)
	foreign := 0
	for len(own) > 0 || foreign < 200 {
		a, is := netip.Addr{}, false
		for a = range own {
			is = true
			break
		}
		delete(own, a)
		for !is { // and then some that are not
			a = random([]string{"198.18.0.0/15", "2001:db8::/64"}[foreign%2])
			if is = true; !slices.Contains(g.Self, a) {
				foreign++
			}
		}
		want := abi.ReasonDefaultDrop
		if slices.Contains(g.Self, a) {
			want = abi.ReasonFailsafe
		}
		frame := to4(a.Unmap().String(), frame4(6, tcp(1, 22)))
		if a.Is6() {
			frame = to6(a.String(), ether(typeIP6, ip6(6, 64, src6, tcp(1, 22))))
		}
		if got := abi.Reason(s.explain(t, s.uplink, frame).Reason); got != want {
			t.Errorf("to %s: %s, want %s", a, got, want)
		}
	}
}

// TestInterfacesThatShareAPlaceCountApart: of two indexes with the same low bits one is in the array, the other in the hash.
func TestInterfacesThatShareAPlaceCountApart(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	var interfaces []xdp.Interface
	at := map[string]int{"near": s.uplink + 8*abi.InterfaceSlots, "far": s.uplink + 9*abi.InterfaceSlots}
	for _, name := range []string{"near", "far"} {
		attrs := netlink.LinkAttrs{Name: name, Index: at[name]}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-tor"}); err != nil {
			t.Fatal(err)
		}
		interfaces = append(interfaces, xdp.Interface{Name: name, Mode: xdp.Native})
	}
	frame := frame4(17, udp(1, 2))
	send := func(names ...string) map[string]uint64 {
		for n, name := range names {
			for range n + 1 {
				run(t, s.live, ifindex(t, name), frame)
			}
		}
		counters, err := s.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{} // "": of unknown interfaces
		for _, i := range counters.Interfaces {
			got[i.Name] = i.Reasons[abi.ReasonDefaultDrop].Packets
		}
		return got
	}
	uplink := xdp.Interface{Name: "uplink", Mode: xdp.Native}
	converge(t, s.Subsystem, state(generation(classify.Drop), interfaces[1], interfaces[0], uplink))
	if diff := cmp.Diff(map[string]uint64{"uplink": 1, "near": 2, "far": 3}, send("uplink", "near", "far")); diff != "" {
		t.Error(diff)
	}
	// One of them goes: the others count on, wherever they stand.
	converge(t, s.Subsystem, state(generation(classify.Drop), interfaces[1], uplink))
	if diff := cmp.Diff(map[string]uint64{"": 3, "uplink": 2, "far": 5}, send("uplink", "far", "near")); diff != "" {
		t.Error(diff)
	}
}
