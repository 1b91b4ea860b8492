package progrun_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// TestXDPAgreesWithTheReferenceModelOnLargeRuleSets judges 100,000 packets in all, by rules that fill buckets, leaves and
// lists of every kind.
func TestXDPAgreesWithTheReferenceModelOnLargeRuleSets(t *testing.T) {
	const rules, packets = 3000, 25_000
	s := newSite(t, generation(classify.Accept))
	for _, shape := range classifytest.Shapes {
		rng := rand.New(rand.NewPCG(1, 21))
		g := generation(classify.Drop, classifytest.Rules(rng, shape, rules)...)
		for range rules / 20 {
			g.Ingress.Rules[rng.IntN(rules)].Shadow = true
			g.Ingress.Rules[rng.IntN(rules)].NotTo = g.Ingress.Rules[rng.IntN(rules)].To
			g.Ingress.Rules[rng.IntN(rules)].TTL = 64
		}
		s.load(t, g)
		s.agrees(t, g, classifytest.Packets(rng, []classify.Policy{g.Ingress}, packets))
		if t.Failed() {
			t.Fatalf("shape %s", shape)
		}
	}
}

// TestXDPFindsAddressesAmongManyPrefixes asks tables of 200,000 prefixes of each family, of sources and destinations.
func TestXDPFindsAddressesAmongManyPrefixes(t *testing.T) {
	const prefixes, packets = 200_000, 20_000
	rng := rand.New(rand.NewPCG(1, 22))
	four, six := classifytest.Blocklist4(rng, prefixes), classifytest.Blocklist6(rng, prefixes)
	both := slices.Concat(four, six)
	g := generation(classify.Accept,
		classify.Rule{ID: 1, From: both, Protocol: classify.AnyProtocol, Action: classify.Drop},
		classify.Rule{ID: 2, To: both, Protocol: classify.AnyProtocol, Action: classify.Drop})
	s := newSite(t, g)
	in := map[netip.Prefix]bool{}
	for _, p := range both {
		in[p] = true
	}
	address := func(v6 bool) netip.Addr {
		list, any := four, classifytest.Addr4(rng)
		if v6 {
			list, any = six, classifytest.Addr6(rng)
		}
		switch a := list[rng.IntN(prefixes)].Addr(); rng.IntN(6) {
		case 0:
			return a
		case 1:
			return a.Prev()
		case 2:
			return a.Next()
		default:
			return any
		}
	}
	hits := [3]int{}
	for range packets {
		v6 := rng.IntN(2) == 0
		p := classify.Packet{Src: address(v6), Dst: address(v6), Protocol: 17, SrcPort: 1, DstPort: 2, HasPorts: true, TTL: 64}
		want := uint32(0)
		if covers(in, p.Src) {
			want = 1
		} else if covers(in, p.Dst) {
			want = 2
		}
		hits[want]++
		if said := s.explain(t, s.uplink, frameOf(t, p)); said.Rule != want || abi.Reason(said.Reason) == abi.ReasonInternal {
			t.Fatalf("%s to %s: rule %d, want %d", p.Src, p.Dst, said.Rule, want)
		}
	}
	if slices.Min(hits[:]) < packets/20 {
		t.Errorf("the packets met no rule, the first and the second %v times", hits)
	}
}

func covers(in map[netip.Prefix]bool, a netip.Addr) bool {
	for bits := range a.BitLen() + 1 {
		if p, _ := a.Prefix(bits); in[p] {
			return true
		}
	}
	return false
}
