package ipsec

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/crypto/path"
)

var comparePrefix = cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{})

func TestDiffOfEqualStatesIsEmpty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		s := randomState(r)
		if ops := Diff(s, s); len(ops) != 0 {
			t.Fatalf("%v\nof %+v", ops, s)
		}
	}
}

// The model machine keeps policies and routes as the kernel does: a prefix has one policy of an interface, a (prefix,
// metric) one route. Whatever two states are drawn, and whatever was taken from the machine by hand, the ops must lead to
// the wanted one, with every teardown run last, as the engine does, and each op run twice.
func TestReplayingDiffOnTheModelGivesTheWantedState(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for i := range 3000 {
		from, to := randomState(r), randomState(r)
		m := newMachine()
		m.replay(t, Diff(State{}, from))
		m.damage(r)
		have := m.state()
		ops := Diff(have, to)
		m.replay(t, ops)
		if diff := cmp.Diff(plain(to), plain(m.state()), comparePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("round %d (-want +have):\n%s\nops:\n%s\nbefore: %+v", i, diff, strings.Join(said(ops), "\n"), have)
		}
		if again := Diff(m.state(), to); len(again) != 0 {
			t.Fatalf("round %d: not settled, still %v\nafter:\n%s", i, again, said(ops))
		}
		if first := slices.IndexFunc(ops, Op.Teardown); first >= 0 && slices.ContainsFunc(ops[first:], func(o Op) bool { return !o.Teardown() }) {
			t.Fatalf("round %d: something is built after a teardown:\n%s", i, strings.Join(said(ops), "\n"))
		}
	}
}

// plain is s with the encapsulations that are in use.
func plain(s State) State {
	s.Tunnels = slices.Clone(s.Tunnels)
	for i := range s.Tunnels {
		s.Tunnels[i].Encapsulation = effective(s.Tunnels[i])
	}
	return s
}

// damage does what people do by hand.
func (m *machine) damage(r *rand.Rand) {
	for name, x := range m.tunnels {
		switch r.IntN(5) {
		case 0:
			m.cut(name)
		case 1:
			for n, p := range x.peers {
				p.Down = true
				x.peers[n] = p
			}
		}
	}
}

func TestAChangeGivesOpsOfWhatChangedOnly(t *testing.T) {
	cases := map[string]struct {
		change func(w *Tunnel)
		want   []string
	}{
		"nothing": {func(w *Tunnel) {}, nil},
		"secret":  {func(w *Tunnel) { w.Peers[0].SecretFile = "/other" }, []string{"update peer a of fra1: secret of /other"}},
		"prefix": {func(w *Tunnel) { w.Peers[1].Prefixes = list("10.9.0.0/16") },
			[]string{"update peer b of fra1: add 10.9.0.0/16", "take 10.2.0.0/16 from peer b of fra1"}},
		"moved prefix": {func(w *Tunnel) { w.Peers[0].Prefixes, w.Peers[1].Prefixes = nil, list("10.1.0.0/16", "10.2.0.0/16") },
			[]string{"update peer b of fra1: add 10.1.0.0/16"}},
		"endpoint":              {func(w *Tunnel) { w.Peers[0].Endpoint = addrPort("192.0.2.9:0") }, []string{"update peer a of fra1: endpoint 192.0.2.9:0"}},
		"port, which ESP lacks": {func(w *Tunnel) { w.Peers[0].Endpoint, w.Local = addrPort("192.0.2.1:7"), addrPort("198.18.0.1:7") }, nil},
		"rekey":                 {func(w *Tunnel) { w.Rekey = time.Hour }, []string{"set tunnel fra1: rekey 1h0m0s"}},
		"auto is none":          {func(w *Tunnel) { w.Encapsulation = Auto }, nil},
		"MTU":                   {func(w *Tunnel) { w.MTU = 1300 }, []string{"set MTU of fra1 to 1300"}},
		"no MTU":                {func(w *Tunnel) { w.MTU = 0 }, nil},
		"UDP": {func(w *Tunnel) { w.Encapsulation, w.Local = UDP, addrPort("198.18.0.1:4501") },
			[]string{"set tunnel fra1: local 198.18.0.1:4501, encapsulation udp", "update peer a of fra1: local 198.18.0.1:4501, encapsulation udp",
				"update peer b of fra1: local 198.18.0.1:4501, encapsulation udp"}},
		"a peer less": {func(w *Tunnel) { w.Peers = w.Peers[:1] }, []string{"remove peer b from fra1"}},
		"a route more": {func(w *Tunnel) { w.Routes = append(w.Routes, path.Route{Prefix: list("10.3.0.0/16")[0], Metric: 5}) },
			[]string{"add route 10.3.0.0/16 dev fra1 metric 5"}},
	}
	for name, c := range cases {
		want := site()
		c.change(&want.Tunnels[0])
		if diff := cmp.Diff(c.want, said(Diff(site(), want))); diff != "" {
			t.Errorf("%s (-want +have):\n%s", name, diff)
		}
	}
}

func TestATunnelIsBuiltFromItsLinkUpAndGoesAsAWhole(t *testing.T) {
	built := []string{
		"create tunnel fra1 (ipsec, keying static, encapsulation none)",
		"add peer a to fra1 (10.1.0.0/16)",
		"add peer b to fra1 (10.2.0.0/16)",
		"add address 10.200.0.1/31 to fra1",
		"add route 10.1.0.0/16 dev fra1 metric 100",
	}
	if diff := cmp.Diff(built, said(Diff(State{}, site()))); diff != "" {
		t.Errorf("build (-want +have):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"remove tunnel fra1"}, said(Diff(site(), State{}))); diff != "" {
		t.Errorf("teardown (-want +have):\n%s", diff)
	}
}

func TestARenamedTunnelGivesItsSPIsUpFirst(t *testing.T) {
	renamed := site()
	renamed.Tunnels[0].Name = "ams1"
	ops := Diff(site(), renamed)
	if got := ops[0].String(); got != "remove tunnel fra1" || ops[0].Teardown() {
		t.Errorf("the first op is %q, teardown %v", got, ops[0].Teardown())
	}
	moved := site()
	moved.Tunnels[0].Peers = moved.Tunnels[0].Peers[:1]
	other := site().Tunnels[0]
	other.Name, other.Peers, other.Addresses, other.Routes = "lon1", other.Peers[1:], nil, nil
	moved.Tunnels = append(moved.Tunnels, other)
	want := []string{"remove peer b from fra1", "create tunnel lon1 (ipsec, keying static, encapsulation none)", "add peer b to lon1 (10.2.0.0/16)"}
	if diff := cmp.Diff(want, said(Diff(site(), moved))); diff != "" {
		t.Errorf("a peer that moves (-want +have):\n%s", diff)
	}
}

func TestEveryOpSaysWhatItDoes(t *testing.T) {
	for k := createTunnel; k <= removeTunnel; k++ {
		op := Op{kind: k, tunnel: site().Tunnels[0], why: "x"}
		if s := op.String(); s == "" || strings.Contains(s, "unknown") || strings.Contains(s, "\n") {
			t.Errorf("op %d says %q", k, s)
		}
	}
}

func TestNamesOfTheUnknownLeadBackToTheirNumbers(t *testing.T) {
	if got := unnamed(nameless(0x51c12345)); got != 0x51c12345 {
		t.Errorf("%#x", got)
	}
	if got := unnamed("fra1"); got != 0 {
		t.Errorf("fra1 is %#x", got)
	}
	seen := map[uint32]string{}
	for i := range 100 {
		name := fmt.Sprint("tun", i)
		id := IfID(name)
		if !isOurs(id) || seen[id] != "" {
			t.Errorf("%s has if_id %#x, as %q", name, id, seen[id])
		}
		seen[id] = name
	}
}

// site is one tunnel with two peers, with a route to the first.
func site() State {
	return State{Tunnels: []Tunnel{{
		Name: "fra1", Keying: Static, Encapsulation: None, ID: "self", Local: addrPort("198.18.0.1:0"), MTU: 1420, ReplayWindow: 1024, Rekey: 24 * time.Hour,
		Addresses: list("10.200.0.1/31"),
		Peers: []Peer{
			{Name: "a", ID: "a", SecretFile: "/k", Endpoint: addrPort("192.0.2.1:0"), Prefixes: list("10.1.0.0/16")},
			{Name: "b", ID: "b", SecretFile: "/k", Endpoint: addrPort("192.0.2.2:0"), Prefixes: list("10.2.0.0/16")},
		},
		Routes: []path.Route{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Metric: 100}},
	}}}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func list(prefixes ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func said(ops []Op) []string {
	var out []string
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

// randomState draws from small pools, so that two draws meet. It is valid: no two tunnels share a route, and no two peers
// of a tunnel a prefix.
func randomState(r *rand.Rand) State {
	var s State
	routes := r.Perm(8)
	for _, name := range []string{"ams1", "fra1", "lon1"} {
		if r.IntN(3) == 0 {
			continue
		}
		t := Tunnel{
			Name: name, Keying: Static, Encapsulation: []Encapsulation{Auto, None, UDP}[r.IntN(3)], ID: fmt.Sprint("id", r.IntN(2)),
			Local: addrPort(fmt.Sprintf("198.18.0.%d:0", 1+r.IntN(2))), MTU: 1380 + 20*r.IntN(3), FirewallMark: uint32(r.IntN(2)),
			ReplayWindow: 64 << r.IntN(2), Rekey: time.Duration(r.IntN(2)) * time.Hour,
		}
		owned := r.Perm(8)
		for _, peer := range []string{"a", "b", "c"} {
			if r.IntN(3) == 0 {
				continue
			}
			p := Peer{Name: peer, ID: fmt.Sprint(peer, r.IntN(2)), SecretFile: []string{"/a", "/b"}[r.IntN(2)]}
			p.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(2))}), 0)
			p.Prefixes, owned = draw(r, owned)
			t.Peers = append(t.Peers, p)
		}
		t.Addresses, _ = draw(r, r.Perm(8))
		var to []netip.Prefix
		to, routes = draw(r, routes)
		for _, p := range to {
			t.Routes = append(t.Routes, path.Route{Prefix: p, Metric: 100 * (1 + r.IntN(2)), Table: path.Table * r.IntN(2)})
		}
		s.Tunnels = append(s.Tunnels, t)
	}
	return s
}

func draw(r *rand.Rand, from []int) (taken []netip.Prefix, rest []int) {
	n := r.IntN(min(3, len(from)+1))
	for _, i := range from[:n] {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
		if i%2 == 1 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 15: byte(i)}), 128)
		}
		taken = append(taken, p)
	}
	slices.SortFunc(taken, netip.Prefix.Compare)
	return taken, from[n:]
}
