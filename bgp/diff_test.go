package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/bgp/bfd"
)

// randomState draws from small pools, so that two draws share neighbors, addresses and prefixes.
func randomState(r *rand.Rand) State {
	if r.IntN(10) == 0 {
		return State{}
	}
	s := State{ASN: 65010 + uint32(r.IntN(2)), RouterID: netip.AddrFrom4([4]byte{198, 18, 0, byte(1 + r.IntN(2))}), Port: 179}
	for i := range 6 {
		if r.IntN(2) == 0 {
			continue
		}
		s.Neighbors = append(s.Neighbors, Neighbor{
			Name: fmt.Sprintf("tor-%d", (i+r.IntN(2)*3)%6*10+i), Address: netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}),
			ASN: 65000 + uint32(r.IntN(2)), IPv4: true, IPv6: r.IntN(2) == 0, Limit: PrefixLimit{Max: uint32(r.IntN(3))}, Shutdown: r.IntN(4) == 0,
			FlowSpec4: r.IntN(2) == 0, FlowSpec6: r.IntN(2) == 0,
			HoldTime: time.Duration(9+r.IntN(2)) * time.Second,
		})
	}
	for _, n := range s.Neighbors {
		if r.IntN(2) == 0 {
			s.BFD = append(s.BFD, bfd.Config{Peer: n.Address, MinTx: time.Duration(1+r.IntN(2)) * time.Second, MinRx: time.Second, Multiplier: 3})
		}
	}
	for i := range 8 {
		if r.IntN(2) == 0 {
			continue
		}
		p := Path{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}
		for range r.IntN(3) {
			p.Communities = append(p.Communities, r.Uint32N(4))
		}
		if r.IntN(3) == 0 {
			p.MED = new(uint32)
			*p.MED = r.Uint32N(2)
		}
		s.Paths = append(s.Paths, p)
		if r.IntN(3) == 0 {
			p.To, p.Prepend = []netip.Addr{netip.AddrFrom4([4]byte{198, 18, 1, byte(r.IntN(2))})}, r.IntN(2)
			s.Paths = append(s.Paths, p)
		}
	}
	r.Shuffle(len(s.Paths), func(i, j int) { s.Paths[i], s.Paths[j] = s.Paths[j], s.Paths[i] })
	s.Learn = Learn{ECMP: r.IntN(3), Metric: 20, Table: r.IntN(2) * 100, Accept: []Filter{
		{PrefixMatch: PrefixMatch{Prefix: netip.MustParsePrefix("0.0.0.0/0"), LE: r.IntN(2) * 24}, ASPath: []string{"", "_65001_"}[r.IntN(2)]},
	}}
	if r.IntN(2) == 0 {
		s.Learn.Reject = []Filter{{Communities: []uint32{r.Uint32N(2)}}}
	}
	s.FlowSpec = FlowSpec{MaxRules: r.IntN(2) * 1000, Keep: time.Minute, AcceptFrom: []netip.Addr{netip.AddrFrom4([4]byte{198, 18, 1, byte(r.IntN(2))})}}
	return s
}

func replay(s State, ops []Op) State {
	for _, op := range ops {
		s = op.on(s)
	}
	return s
}

// reorder is what the engine does with a plan: teardown at the end, or withdrawals first of all.
func reorder(ops []Op, first func(Op) bool) []Op {
	var a, b []Op
	for _, op := range ops {
		if first(op) {
			a = append(a, op)
		} else {
			b = append(b, op)
		}
	}
	return append(a, b...)
}

func same(a, b State) string {
	return cmp.Diff(a.normal(), b.normal(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
}

func TestReplayingADiffGivesTheWantedState(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		have, want := randomState(r), randomState(r)
		ops := Diff(have, want)
		orders := map[string][]Op{
			"in order":      ops,
			"teardown last": reorder(ops, func(o Op) bool { return !o.Teardown() }),
		}
		if have.identity() == want.identity() {
			orders["withdrawals first"] = reorder(ops, func(o Op) bool { return o.kind == withdraw })
		}
		for name, order := range orders {
			if d := same(replay(have.normal(), order), want); d != "" {
				t.Fatalf("%s: %v leaves (-got +want)\n%s", name, order, d)
			}
		}
		if again := Diff(want, want); len(again) != 0 {
			t.Fatalf("Diff(x, x) = %v", again)
		}
		if twice := replay(replay(have.normal(), ops), ops); same(twice, want) != "" {
			t.Fatalf("steps are not idempotent: %v", ops)
		}
	}
}

func TestADiffResetsOnlyTheSessionsThatChanged(t *testing.T) {
	base := State{
		ASN: 65010, RouterID: netip.MustParseAddr("198.18.0.2"), Port: 179,
		Neighbors: []Neighbor{
			{Name: "tor-a", Address: netip.MustParseAddr("198.18.0.1"), ASN: 65000, IPv4: true},
			{Name: "tor-b", Address: netip.MustParseAddr("198.18.0.5"), ASN: 65001, IPv4: true},
		},
		Paths: []Path{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Communities: []uint32{65010<<16 | 100}}},
	}
	cases := []struct {
		name   string
		change func(*State)
		want   []string
	}{
		{"a community", func(s *State) { s.Paths = []Path{{Prefix: s.Paths[0].Prefix}} }, []string{"announce 203.0.113.0/24"}},
		{"a prefix", func(s *State) { s.Paths = nil }, []string{"withdraw 203.0.113.0/24"}},
		{"a limit and a name", func(s *State) { s.Neighbors[1].Limit.Max, s.Neighbors[1].Name = 10, "tor-c" },
			[]string{"change neighbor tor-c (198.18.0.5): name, max prefixes 10"}},
		{"a shutdown", func(s *State) { s.Neighbors[0].Shutdown, s.Neighbors[0].Reason = true, "works" },
			[]string{"change neighbor tor-a (198.18.0.1): shut down, reason of a shutdown"}},
		{"timers and next hops", func(s *State) {
			s.Neighbors[0].Keepalive, s.Neighbors[1].NextHop4 = 3*time.Second, netip.MustParseAddr("198.18.0.2")
		}, []string{"change neighbor tor-a (198.18.0.1): timers of the next session", "change neighbor tor-b (198.18.0.5): next hops"}},
		{"a neighbor's AS", func(s *State) { s.Neighbors[1].ASN = 65009 }, []string{"reset neighbor tor-b (198.18.0.5 as 65009)"}},
		{"a neighbor's families", func(s *State) { s.Neighbors[1].FlowSpec6 = true }, []string{"reset neighbor tor-b (198.18.0.5 as 65001)"}},
		{"which FlowSpec rules count", func(s *State) { s.FlowSpec = FlowSpec{MaxRules: 10, Keep: time.Minute} },
			[]string{"trust 0 neighbors with FlowSpec, at most 10 rules, kept for 1m0s"}},
		{"a neighbor's address", func(s *State) { s.Neighbors[1].Address = netip.MustParseAddr("198.18.0.9") },
			[]string{"add neighbor tor-b (198.18.0.9 as 65001)", "remove neighbor tor-b (198.18.0.5)"}},
		{"learning", func(s *State) { s.Learn.Metric = 20 }, []string{"learn by 0 filters, beside 0 tunnels, ecmp 0, metric 20"}},
		{"our AS", func(s *State) { s.ASN = 65011 }, []string{
			"start bgp speaker as 65011 id 198.18.0.2 port 179: all sessions are reset", "announce 203.0.113.0/24 65010:100",
			"add neighbor tor-a (198.18.0.1 as 65000)", "add neighbor tor-b (198.18.0.5 as 65001)"}},
		{"everything", func(s *State) { *s = State{} }, []string{"stop bgp speaker"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want := replay(State{}, Diff(State{}, base))
			c.change(&want)
			var got []string
			for _, op := range Diff(base, want) {
				got = append(got, op.String())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("steps (-want +got)\n%s", d)
			}
		})
	}
}
