package wireguard

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

func TestDiffOfEqualStatesIsEmpty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		s := randomState(r)
		if ops := Diff(s, s); len(ops) != 0 {
			t.Fatalf("%v\nof %+v", ops, s)
		}
	}
}

// The model machine keeps allowed-ips, routes and ports as a kernel does: a prefix has one peer, a (prefix, metric) one
// route, a port one socket. Whatever two states are drawn, the ops must lead from one to the other on it, with every
// teardown run last, as the engine does, and each op run twice.
func TestReplayingDiffOnTheModelGivesTheWantedState(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for i := range 2000 {
		from, to := randomState(r), randomState(r)
		m := newMachine()
		m.replay(t, Diff(State{}, from))
		have := m.state()
		ops := Diff(have, to)
		m.replay(t, ops)
		if diff := cmp.Diff(wanted(to, m.state()), m.state(), comparePrefix); diff != "" {
			t.Fatalf("round %d (-want +have):\n%s\nops:\n%s", i, diff, lines(ops))
		}
		if diff := cmp.Diff(m.owners(), m.carried(), comparePrefix); diff != "" {
			t.Fatalf("the driver knows of other prefixes than the devices have (-devices, +driver):\n%s", diff)
		}
		if again := Diff(m.state(), to); len(again) != 0 {
			t.Fatalf("round %d: not settled, still %v\nafter:\n%s", i, again, lines(ops))
		}
		checkOrder(t, ops)
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// TestAKeyOfAPeerIsNotThePeer: a plan that takes one of two keys out does not read as if the peer went.
func TestAKeyOfAPeerIsNotThePeer(t *testing.T) {
	one, two := site(), site()
	two.Tunnels[0].Peers = append(two.Tunnels[0].Peers, Peer{Name: "b", PublicKey: "Z"})
	without := site()
	without.Tunnels[0].Peers = without.Tunnels[0].Peers[:1]
	for _, c := range []struct {
		have, want State
		ops        []string
	}{
		{one, two, []string{"add key Z of peer b to fra1 (no prefixes until the peer uses it)"}},
		{two, one, []string{"remove key Z of peer b from fra1; the peer stays"}},
		{without, two, []string{"add peer b to fra1 (10.2.0.0/16)", "add key Z of peer b to fra1 (no prefixes until the peer uses it)"}},
		{two, without, []string{"remove peer b from fra1", "remove peer b from fra1"}},
	} {
		if diff := cmp.Diff(c.ops, said(Diff(c.have, c.want))); diff != "" {
			t.Errorf("(-want +have):\n%s", diff)
		}
	}
}

func TestAChangeOfOnePeerGivesOpsOfThatPeerOnly(t *testing.T) {
	base := site()
	cases := map[string]struct {
		change func(*Peer)
		want   []string
	}{
		"name":          {func(p *Peer) { p.Name = "new" }, nil},
		"endpoint":      {func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("192.0.2.9:9") }, []string{"update peer b of fra1: endpoint 192.0.2.9:9"}},
		"endpoint gone": {func(p *Peer) { p.Endpoint = netip.AddrPort{} }, nil},
		"keepalive":     {func(p *Peer) { p.Keepalive = 7 * time.Second }, []string{"update peer b of fra1: keepalive 7s"}},
		"preshared key": {func(p *Peer) { p.PresharedKeyFile = "/k" }, []string{"update peer b of fra1: preshared key /k"}},
		"one more":      {func(p *Peer) { p.AllowedIPs = list("10.2.0.0/16", "10.9.0.0/16") }, []string{"update peer b of fra1: add 10.9.0.0/16"}},
		"other prefix": {func(p *Peer) { p.AllowedIPs = list("10.9.0.0/16") },
			[]string{"update peer b of fra1: add 10.9.0.0/16", "take 10.2.0.0/16 from peer b of fra1"}},
		"none": {func(p *Peer) { p.AllowedIPs = nil }, []string{"take 10.2.0.0/16 from peer b of fra1"}},
		"key": {func(p *Peer) { p.PublicKey = "Z" },
			[]string{"add key Z of peer b to fra1 (10.2.0.0/16)", "remove key B of peer b from fra1; the peer stays"}},
	}
	for name, c := range cases {
		want := site()
		c.change(&want.Tunnels[0].Peers[1])
		if diff := cmp.Diff(c.want, said(Diff(base, want))); diff != "" {
			t.Errorf("%s (-want +have):\n%s", name, diff)
		}
	}
}

func TestAPrefixMovesBetweenPeersWithoutBeingTakenFirst(t *testing.T) {
	want := site()
	a, b := &want.Tunnels[0].Peers[0], &want.Tunnels[0].Peers[1]
	a.AllowedIPs, b.AllowedIPs = nil, list("10.1.0.0/16", "10.2.0.0/16")
	ops := said(Diff(site(), want))
	if diff := cmp.Diff([]string{"update peer b of fra1: add 10.1.0.0/16"}, ops); diff != "" {
		t.Error(diff)
	}
}

func TestATunnelIsBuiltFromItsLinkUpAndTakenDownToIt(t *testing.T) {
	built := []string{
		"create tunnel fra1 (wireguard, backend userspace, port 51820)",
		"add peer a to fra1 (10.1.0.0/16)",
		"add peer b to fra1 (10.2.0.0/16)",
		"add address 10.200.0.1/31 to fra1",
		"add route 10.1.0.0/16 dev fra1 metric 100",
	}
	if diff := cmp.Diff(built, said(Diff(State{}, site()))); diff != "" {
		t.Errorf("build (-want +have):\n%s", diff)
	}
	gone := []string{"remove tunnel fra1"}
	if diff := cmp.Diff(gone, said(Diff(site(), State{}))); diff != "" {
		t.Errorf("teardown (-want +have):\n%s", diff)
	}
	bare := site()
	bare.Tunnels[0] = Tunnel{Name: "fra1", Backend: Userspace, PublicKey: "own", ListenPort: 51820, MTU: 1420}
	emptied := []string{
		"remove peer a from fra1",
		"remove peer b from fra1",
		"remove address 10.200.0.1/31 from fra1",
		"remove route 10.1.0.0/16 dev fra1 metric 100",
	}
	if diff := cmp.Diff(emptied, said(Diff(site(), bare))); diff != "" {
		t.Errorf("emptying (-want +have):\n%s", diff)
	}
}

func TestWhatADeadDaemonLeftIsStartedAndItsRoutesAreLeftAlone(t *testing.T) {
	left := site()
	h := &left.Tunnels[0]
	h.Down, h.PublicKey, h.ListenPort, h.Peers = true, "", 0, nil
	want := []string{
		"start tunnel fra1 on its existing interface",
		"add peer a to fra1 (10.1.0.0/16)",
		"add peer b to fra1 (10.2.0.0/16)",
	}
	if diff := cmp.Diff(want, said(Diff(left, site()))); diff != "" {
		t.Error(diff)
	}
}

func TestARenamedTunnelGivesItsPortUpFirst(t *testing.T) {
	renamed := site()
	renamed.Tunnels[0].Name = "ams1"
	ops := Diff(site(), renamed)
	if got := ops[0].String(); got != "remove tunnel fra1" || ops[0].Teardown() {
		t.Errorf("the first op is %q, teardown %v", got, ops[0].Teardown())
	}
}

func TestBackendAutoKeepsWhateverRuns(t *testing.T) {
	for _, b := range []Backend{Kernel, Userspace} {
		have, want := site(), site()
		have.Tunnels[0].Backend, want.Tunnels[0].Backend = b, Auto
		if ops := Diff(have, want); len(ops) != 0 {
			t.Errorf("%s: %v", b, ops)
		}
	}
	want := site()
	want.Tunnels[0].Backend = Kernel
	if got := said(Diff(site(), want))[0]; got != "replace tunnel fra1 by one of backend kernel" {
		t.Error(got)
	}
}

func TestTheLocalAddressIsSetWhereADeviceKnowsOne(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.9")
	for b, want := range map[Backend][]string{Userspace: {"set tunnel fra1: local address 192.0.2.9"}, Kernel: nil} {
		for _, wanted := range []Backend{b, Auto} {
			have, to := site(), site()
			have.Tunnels[0].Backend, to.Tunnels[0].Backend, to.Tunnels[0].Local = b, wanted, local
			if diff := cmp.Diff(want, said(Diff(have, to))); diff != "" {
				t.Errorf("%s, %s wanted (-want +have):\n%s", b, wanted, diff)
			}
		}
	}
}

func TestManyNewPeersAreOneOp(t *testing.T) {
	want := site()
	for i := range 1000 {
		want.Tunnels[0].Peers = append(want.Tunnels[0].Peers, Peer{Name: fmt.Sprint("p", i), PublicKey: fmt.Sprint("key", i)})
	}
	if diff := cmp.Diff([]string{"add 1000 peers to fra1: p0 p1 p2 p3 p4 p5 p6 p7 …"}, said(Diff(site(), want))); diff != "" {
		t.Error(diff)
	}
}

func TestEveryOpSaysWhatItDoes(t *testing.T) {
	for k := createTunnel; k <= removeTunnel; k++ {
		op := Op{kind: k, tunnel: site().Tunnels[0], fields: fields{key: true, port: true, mark: true, local: true}}
		if s := op.String(); s == "" || strings.Contains(s, "unknown") || strings.Contains(s, "\n") {
			t.Errorf("op %d says %q", k, s)
		}
	}
}

// checkOrder asserts what the order promises beyond the result.
func checkOrder(t *testing.T, ops []Op) {
	t.Helper()
	teardown := false
	for _, op := range ops {
		if teardown && !op.Teardown() {
			t.Errorf("%s comes after a teardown:\n%s", op, lines(ops))
		}
		teardown = op.Teardown()
	}
}

// site is one tunnel with two peers, with a route to the first.
func site() State {
	return State{Tunnels: []Tunnel{{
		Name: "fra1", Backend: Userspace, PublicKey: "own", ListenPort: 51820, MTU: 1420,
		Addresses: list("10.200.0.1/31"),
		Peers: []Peer{
			{Name: "a", PublicKey: "A", Endpoint: netip.MustParseAddrPort("192.0.2.1:1"), AllowedIPs: list("10.1.0.0/16")},
			{Name: "b", PublicKey: "B", Endpoint: netip.MustParseAddrPort("192.0.2.2:2"), AllowedIPs: list("10.2.0.0/16")},
		},
		Routes: []path.Route{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Metric: 100}},
	}}}
}

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

func lines(ops []Op) string { return strings.Join(said(ops), "\n") }

// randomState draws from small pools, so that two draws meet in names, keys, prefixes and ports. It is valid: within
// it, no two tunnels share a port or a route, and no two peers of a tunnel a prefix.
func randomState(r *rand.Rand) State {
	var s State
	ports := r.Perm(4)
	routes := r.Perm(8)
	for i, name := range []string{"ams1", "fra1", "lon1"} {
		if r.IntN(3) == 0 {
			continue
		}
		t := Tunnel{
			Name: name, Backend: []Backend{Auto, Kernel, Userspace}[r.IntN(3)], PublicKey: fmt.Sprint("own", r.IntN(2)),
			ListenPort: uint16(51820 + ports[i]), MTU: 1380 + 20*r.IntN(3), FirewallMark: uint32(r.IntN(2)),
		}
		if r.IntN(2) == 0 {
			t.Local = netip.AddrFrom4([4]byte{192, 0, 2, byte(8 + r.IntN(2))})
		}
		owned := r.Perm(8)
		for _, key := range []string{"A", "B", "C"} {
			if r.IntN(3) == 0 {
				continue
			}
			p := Peer{Name: fmt.Sprint(r.IntN(9)), PublicKey: key, Keepalive: time.Duration(r.IntN(2)) * time.Second}
			if r.IntN(2) == 0 {
				p.Endpoint = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(2))}), 1)
			}
			p.PresharedKeyFile = []string{"", "/a", "/b"}[r.IntN(3)]
			p.AllowedIPs, owned = draw(r, owned)
			t.Peers = append(t.Peers, p)
		}
		t.Addresses, _ = draw(r, r.Perm(8))
		var to []netip.Prefix
		to, routes = draw(r, routes)
		for _, p := range to {
			t.Routes = append(t.Routes, path.Route{Prefix: p, Metric: 100 * (1 + r.IntN(2))})
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

var comparePrefix = cmpopts.EquateComparable(netip.Prefix{}, netip.AddrPort{}, netip.Addr{})

// What makes, removes or resizes a link, or gives it an address, is seen by host and tc.
func TestOpsOnPeersAndRoutesAloneAreContained(t *testing.T) {
	contained := map[kind]bool{addPeers: true, updatePeer: true, dropAllowed: true, removePeer: true, addRoute: true, removeRoute: true}
	for k := createTunnel; k <= removeTunnel; k++ {
		if got := (Op{kind: k}).Contained(); got != contained[k] {
			t.Errorf("op %d: %v", k, got)
		}
	}
}
