package progruntc_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/tests/pindir"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// The site. The gateway's interfaces are named by role. A TUN stands for a tunnel: neither has an Ethernet header. Test
// runs always supply one, so they use a tunnel that has.
//
//	outside 198.18.0.1 --- 198.18.0.2 uplink | gateway | wl1 --- 10.0.1.10 workload 1
//	lan     192.0.2.9  --- 192.0.2.1    down |         | wl2 --- 10.0.1.20 workload 2
//	                                         |         | tap0: 10.20.0.0/16, tun0: 10.21.0.0/16
type site struct {
	*tc.Subsystem
	dir                   string
	gateway, outside, lan namespace
	workload1, workload2  namespace
	want                  tc.State
	reasons               map[string]map[abi.Reason]tc.Count // as last read
}

const (
	client4, client6 = "198.51.100.7", "2001:db8:7::7" // beyond the outside's own link
	self4, self6     = "198.18.0.2", "2001:db8::2"
	w1v4, w1v6       = "10.0.1.10", "fd00:1::10"
	w2v4, w2v6       = "10.0.1.20", "fd00:1::20"
	lan4             = "192.0.2.9"
	remote4          = "10.20.0.9" // behind tap0
	strict4          = "10.99.0.0/16"
)

// newSite builds the namespaces, loads want(...) and enters the gateway.
func newSite(t testing.TB, change ...func(*tc.State)) *site {
	t.Helper()
	want := baseline()
	for _, f := range change {
		f(&want)
	}
	s := &site{want: want}
	s.dir = dirs.Lend(t, func() string { return like(s.want) })
	s.gateway, s.outside, s.lan, s.workload1, s.workload2 = newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t)
	s.gateway.do(t, func() error {
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := sysctl(name, "1"); err != nil {
				return err
			}
		}
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN})
	})
	s.gateway.do(t, func() error { return up("tun0") })
	s.gateway.connect(t, "uplink", s.outside, "eth0")
	s.gateway.connect(t, "down", s.lan, "eth0")
	s.gateway.address(t, "uplink", self4+"/30", self6+"/64")
	s.gateway.address(t, "down", "192.0.2.1/24")
	s.outside.address(t, "eth0", "198.18.0.1/30", "2001:db8::1/64")
	s.outside.do(t, func() error { return up("lo") })
	s.outside.address(t, "lo", client4+"/32", client6+"/128")
	s.outside.route(t, "10.0.1.0/24", self4, "eth0")
	s.outside.route(t, "fd00:1::/64", self6, "eth0")
	s.gateway.route(t, "198.51.100.0/24", "198.18.0.1", "uplink")
	s.gateway.route(t, "2001:db8:7::/64", "2001:db8::1", "uplink")
	s.gateway.route(t, strict4, "198.18.0.1", "uplink")
	s.gateway.connect(t, "tap0", s.lan, "tap1")
	s.gateway.route(t, "10.20.0.0/16", "", "tap0")
	s.gateway.neighbor(t, "uplink", s.outside, "eth0", "198.18.0.1", "2001:db8::1")
	s.gateway.neighbor(t, "tap0", s.lan, "tap1", remote4)
	s.gateway.neighbor(t, "down", s.lan, "eth0", lan4)
	s.gateway.route(t, "10.21.0.0/16", "", "tun0")
	s.gateway.do(t, func() error {
		_, hole, err := net.ParseCIDR("203.0.113.128/25")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: hole, Type: unix.RTN_BLACKHOLE})
	})
	s.lan.address(t, "eth0", lan4+"/24")
	s.lan.route(t, "0.0.0.0/0", "192.0.2.1", "eth0")
	s.addWorkload(t, s.workload1, "wl1", w1v4, w1v6)
	s.addWorkload(t, s.workload2, "wl2", w2v4, w2v6)

	s.Subsystem = tc.New(slog.New(slog.NewTextHandler(io.Discard, nil)), tc.Options{BPFDir: s.dir})
	s.gateway.enter(t)
	s.converge(t, s.want)
	return s
}

// addWorkload makes what control/host and an orchestrator would: the veth, the gateway's addresses, the routes.
func (s *site) addWorkload(t testing.TB, n namespace, name, v4, v6 string) {
	t.Helper()
	s.gateway.connect(t, name, n, "eth0")
	s.gateway.address(t, name, "169.254.1.1/32", "fe80::1/64")
	s.gateway.route(t, v4+"/32", "", name)
	s.gateway.route(t, v6+"/128", "", name)
	n.do(t, func() error { return up("lo") })
	n.address(t, "eth0", v4+"/32", v6+"/128")
	n.route(t, "0.0.0.0/0", "169.254.1.1", "eth0")
	n.route(t, "::/0", "fe80::1", "eth0")
}

// dirs are the directories of pins of all tests.
var dirs = pindir.NewLender("progruntc")

func bpfDir(t testing.TB) string { return dirs.New(t) }

// like names what the verifier sees of a state.
func like(want tc.State) string {
	g, roles := want.Generation, map[tc.Role]bool{}
	for _, i := range want.Interfaces {
		roles[i.Role] = true
	}
	buckets := 0 // how many there are is a constant of the programs
	if tables, err := classify.Compile(g.Policies()); err == nil {
		buckets = len(tables.Buckets)
	}
	return fmt.Sprint(g.Matrix, roles, len(g.Strict) > 0, buckets, g.FlowSlots, classify.Limited(g.Limiters))
}

// converge applies what Diff asks for and checks that nothing is left to do. It returns what was done.
func (s *site) converge(t testing.TB, want tc.State) []string {
	t.Helper()
	want.Digest = want.Generation.Digest()
	s.want = want
	ctx := context.Background()
	have, err := s.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var done []string
	for _, op := range s.Diff(have, want) {
		if err := s.Apply(ctx, op); err != nil {
			t.Fatalf("%+v", err)
		}
		done = append(done, op.String())
	}
	if have, err = s.Observe(ctx); err != nil {
		t.Fatal(err)
	}
	if ops := s.Diff(have, want); len(ops) > 0 {
		t.Fatalf("after %q there is still %v to do", done, ops)
	}
	return done
}

// Ids of the rules of baseline, whose every default is drop.
const (
	ssh = 1 + iota
	bgpIn
	bgpOut
	ingressWeb
	ingressBad
	egressDNS
	egressWeb
	w1Web
	w1Out
	w1Bad
	w2Web
	w2ToW1
)

func ports(first, last uint16) []classify.PortRange {
	return []classify.PortRange{{First: first, Last: last}}
}

func prefixes(texts ...string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// baseline is the site's state with default drop everywhere.
func baseline() tc.State {
	const tcp, any = 6, classify.AnyProtocol
	self := prefixes(self4, self6, "169.254.1.1", "fe80::1", "192.0.2.1")
	g := tc.Generation{
		Self: addrs("169.254.1.1", "192.0.2.1", self4, self6, "fe80::1"),
		Failsafe: classify.Policy{Name: "failsafe", Rules: []classify.Rule{
			{ID: ssh, Name: "ssh", From: prefixes("198.51.100.0/24"), To: self, Protocol: tcp, Ports: ports(22, 22), Action: classify.Accept},
		}},
		System: classify.Policy{Name: "system", Rules: []classify.Rule{
			{ID: bgpIn, Name: "bgp-in", From: prefixes("198.18.0.1"), To: self, Protocol: tcp, Ports: ports(179, 179), Action: classify.Accept},
			{ID: bgpOut, Name: "bgp-out", From: self, To: prefixes("198.18.0.1"), Protocol: tcp, Ports: ports(179, 179), Action: classify.Accept},
		}},
		Ingress: classify.Policy{Name: "ingress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: ingressBad, Name: "bad", From: prefixes("198.51.100.66"), Protocol: any, Action: classify.Drop},
			{ID: ingressWeb, Name: "web", To: prefixes(w1v4, w1v6), Protocol: tcp, Ports: ports(80, 80), Action: classify.Accept},
		}},
		Egress: classify.Policy{Name: "egress", Default: classify.Drop, Rules: []classify.Rule{
			{ID: egressDNS, Name: "dns", Protocol: 17, Ports: ports(53, 53), Action: classify.Accept},
			{ID: egressWeb, Name: "web", Protocol: tcp, Ports: ports(8080, 8080), Action: classify.Accept},
		}},
		Workloads: []tc.Workload{
			{
				Name: "one", Interface: "wl1", Addresses: addrs(w1v4, w1v6),
				Ingress: classify.Policy{Name: "workload/one/ingress", Default: classify.Drop, Rules: []classify.Rule{
					{ID: w1Web, Name: "web", Protocol: tcp, Ports: ports(80, 80), Action: classify.Accept},
				}},
				Egress: classify.Policy{Name: "workload/one/egress", Default: classify.Drop, Rules: []classify.Rule{
					{ID: w1Bad, Name: "bad", To: prefixes("198.51.100.66"), Protocol: any, Action: classify.Drop},
					{ID: w1Out, Name: "out", To: prefixes("198.51.100.0/24", "2001:db8:7::/64", lan4, "10.20.0.0/15", strict4, "203.0.113.0/24"),
						Protocol: any, Ports: nil, Action: classify.Accept},
				}},
			},
			{
				Name: "two", Interface: "wl2", Addresses: addrs(w2v4, w2v6),
				Ingress: classify.Policy{Name: "workload/two/ingress", Default: classify.Drop, Rules: []classify.Rule{
					{ID: w2Web, Name: "web", Protocol: tcp, Ports: ports(80, 80), Action: classify.Accept},
				}},
				Egress: classify.Policy{Name: "workload/two/egress", Default: classify.Drop, Rules: []classify.Rule{
					{ID: w2ToW1, Name: "one", To: prefixes(w1v4, w1v6), Protocol: tcp, Ports: ports(80, 80), Action: classify.Accept},
				}},
			},
		},
		Strict:    prefixes(strict4),
		FlowSlots: 4096,
	}
	for _, pair := range [][2]tc.Role{
		{tc.RoleUplink, tc.RoleWorkload}, {tc.RoleWorkload, tc.RoleUplink},
		{tc.RoleUplink, tc.RoleDownstream}, {tc.RoleDownstream, tc.RoleUplink},
		{tc.RoleWorkload, tc.RoleTunnel}, {tc.RoleDownstream, tc.RoleTunnel},
		{tc.RoleNone, tc.RoleUplink}, {tc.RoleUplink, tc.RoleNone},
	} {
		g.Matrix[pair[0]][pair[1]] = true
	}
	return tc.State{Generation: g, Interfaces: []tc.Interface{
		{Name: "down", Role: tc.RoleDownstream},
		{Name: "tap0", Role: tc.RoleTunnel, Judge: true},
		{Name: "tun0", Role: tc.RoleTunnel, Judge: true},
		{Name: "uplink", Role: tc.RoleUplink},
		{Name: "wl1", Role: tc.RoleWorkload},
		{Name: "wl2", Role: tc.RoleWorkload},
	}}
}

// judged makes the uplink one that XDP does not guard.
func judged(s *tc.State) {
	for i := range s.Interfaces {
		if s.Interfaces[i].Name == "uplink" {
			s.Interfaces[i].Judge = true
		}
	}
}

// open lets forwarding between two roles pass.
func open(from, to tc.Role) func(*tc.State) {
	return func(s *tc.State) { s.Generation.Matrix[from][to] = true }
}

// counted are the reasons that were counted on an interface since the last call, but link control, which the kernel
// makes when it likes.
func (s *site) counted(t testing.TB, name string) map[abi.Reason]uint64 {
	t.Helper()
	all, err := s.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if s.reasons == nil {
		s.reasons = map[string]map[abi.Reason]tc.Count{}
	}
	out := map[abi.Reason]uint64{}
	for _, i := range all.Interfaces {
		if i.Name != name {
			continue
		}
		for reason, c := range i.Reasons {
			if n := c.Packets - s.reasons[name][reason].Packets; n > 0 && reason != abi.ReasonLinkControl {
				out[reason] = n
			}
		}
		s.reasons[name] = i.Reasons
	}
	return out
}

// quiet waits until what was sent before, the last ACK of a connection say, has been counted: after an interface was
// used it must have counted nothing for 50 ms.
func (s *site) quiet(t testing.TB, name string) {
	t.Helper()
	for end := time.Now().Add(deadline); len(s.counted(t, name)) != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: packets are counted all the time", name)
		}
	}
}

func sorted(s tc.State) tc.State {
	slices.SortFunc(s.Interfaces, func(a, b tc.Interface) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// sub runs a part of a test, which has a thread of its own, in the gateway.
func (s *site) sub(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		s.gateway.enter(t)
		f(t)
	})
}
