package fib_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

var (
	torA  = fib.Source{Neighbor: netip.MustParseAddr("198.18.0.1")}
	torB  = fib.Source{Neighbor: netip.MustParseAddr("198.18.0.5")}
	hopA  = netip.MustParseAddr("198.18.0.1")
	hopB  = netip.MustParseAddr("198.18.0.5")
	hop6  = netip.MustParseAddr("2001:db8::1")
	all   = []fib.Match{{Prefix: pfx("0.0.0.0/0"), LE: 32}, {Prefix: pfx("::/0"), LE: 128}}
	plain = fib.Policy{ECMP: 2, Metric: 20, Accept: all}
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// box is a namespace with two uplinks.
func box(t testing.TB) *nstest.NS {
	gw, peer := nstest.New(t), nstest.New(t)
	for i, addr := range []string{"198.18.0.2/30", "198.18.0.6/30"} {
		nstest.Veth(t, gw, fmt.Sprintf("up%d", i), peer, fmt.Sprintf("gw%d", i))
		gw.Address(t, fmt.Sprintf("up%d", i), addr)
	}
	gw.Address(t, "up0", "2001:db8::2/64")
	return gw
}

func open(t testing.TB, ns *nstest.NS, p fib.Policy) *fib.Table {
	t.Helper()
	table, err := fib.Open(slog.New(slog.DiscardHandler), ns.FD(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	table.SetPolicy(p)
	return table
}

// kernel prints our routes of the main table, one a line, as the kernel tells them.
func kernel(t *testing.T, ns *nstest.NS) string {
	t.Helper()
	out := ""
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := ns.RouteListFiltered(family, &netlink.Route{Protocol: 186}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			out += fmt.Sprintf("%s metric %d via", r.Dst, r.Priority)
			if r.Gw != nil {
				out += " " + r.Gw.String()
			}
			if r.Via != nil {
				out += " " + r.Via.(*netlink.Via).Addr.String()
			}
			for _, nh := range r.MultiPath {
				out += " " + nh.Gw.String()
			}
			out += "\n"
		}
	}
	return out
}

func expect(t *testing.T, ns *nstest.NS, want string) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("kernel", kernel(t, ns), want) })
}

func TestPolicyAllows(t *testing.T) {
	p := fib.Policy{
		Accept: []fib.Match{{Prefix: pfx("0.0.0.0/0"), GE: 0, LE: 24}, {Prefix: pfx("2001:db8::/32"), GE: 32, LE: 32}},
	}
	for prefix, want := range map[string]bool{
		"0.0.0.0/0": true, "192.0.2.0/24": true, "192.0.2.0/25": false,
		"2001:db8::/32": true, "2001:db8::/33": false, "::/0": false,
		"10.0.0.0/8": true,
	} {
		if got := p.Allows(pfx(prefix)); got != want {
			t.Errorf("Allows(%s) = %t, want %t", prefix, got, want)
		}
	}
	if (fib.Policy{}).Allows(pfx("192.0.2.0/24")) {
		t.Error("the zero Policy installs something")
	}
}

func TestLearnedPathsBecomeRoutesAndGo(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("0.0.0.0/0"), torA, hopA)
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.1\n")
	table.Update(pfx("0.0.0.0/0"), torB, hopB)
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.1 198.18.0.5\n")
	table.Update(pfx("2001:db8:1::/48"), torA, hop6)
	table.Update(pfx("::/0"), torA, hop6)
	table.Update(pfx("192.0.2.0/24"), torA, hop6) // RFC 8950
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.1 198.18.0.5\n192.0.2.0/24 metric 20 via 2001:db8::1\n"+
		"2001:db8:1::/48 metric 20 via 2001:db8::1\n::/0 metric 20 via 2001:db8::1\n")
	table.Withdraw(pfx("0.0.0.0/0"), torA)
	table.Withdraw(pfx("192.0.2.0/24"), torA)
	table.Withdraw(pfx("2001:db8:1::/48"), torA)
	table.Withdraw(pfx("::/0"), torB) // never said so
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.5\n::/0 metric 20 via 2001:db8::1\n")
	nstest.Eventually(t, 10*time.Second, func() string { // the kernel knows before the table does
		return nstest.Want("table", table.Routes(fib.Query{}).Routes, "[{0.0.0.0/0 20 254 [198.18.0.5] false false } {::/0 20 254 [2001:db8::1] false false }]")
	})
}

func TestAPolicyChangeMovesWhatIsInstalled(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("192.0.2.0/24"), torB, hopB)
	table.Update(pfx("10.20.1.0/24"), torA, hopA)
	expect(t, ns, "10.20.1.0/24 metric 20 via 198.18.0.1\n192.0.2.0/24 metric 20 via 198.18.0.1 198.18.0.5\n")
	table.SetPolicy(fib.Policy{ECMP: 1, Metric: 30, Accept: all, Tunnels: []fib.Tunnel{{Device: "fra1", Strict: []netip.Prefix{pfx("10.20.0.0/16")}}}})
	expect(t, ns, "192.0.2.0/24 metric 30 via 198.18.0.1\n")
	table.SetPolicy(fib.Policy{})
	expect(t, ns, "")
	table.SetPolicy(fib.Policy{Accept: all})
	expect(t, ns, "10.20.1.0/24 metric 20 via 198.18.0.1\n192.0.2.0/24 metric 20 via 198.18.0.1\n")
}

func TestKeptRoutesStayUntilTheSweep(t *testing.T) {
	ns := box(t)
	before := open(t, ns, plain)
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"} {
		before.Update(pfx(p), torA, hopA)
	}
	three := "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.1\n203.0.113.0/24 metric 20 via 198.18.0.1\n"
	expect(t, ns, three)
	before.Close()
	expect(t, ns, three)

	after := open(t, ns, fib.Policy{ECMP: 2, Metric: 20, Accept: all, Tunnels: []fib.Tunnel{{Device: "fra1", Strict: []netip.Prefix{pfx("203.0.113.0/24")}}}})
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.1\n")
	after.Update(pfx("192.0.2.0/24"), torA, hopA)
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("table", after.Routes(fib.Query{}).Routes, "[{192.0.2.0/24 20 254 [198.18.0.1] false false } {198.51.100.0/24 20 254 [198.18.0.1] true false }]")
	})
	after.Sweep()
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
	after.Close()
	if err := fib.Flush(ns.FD(), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, "")
}

func TestRoutesOfOtherProtocolsAreNotTouched(t *testing.T) {
	ns := box(t)
	foreign := &netlink.Route{
		Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(198, 18, 0, 5),
		Priority: 20, Protocol: unix.RTPROT_STATIC,
	}
	if err := ns.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	static := func() string {
		routes, err := ns.RouteListFiltered(netlink.FAMILY_V4, foreign, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(routes)
	}
	was := static()
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("conflicts", table.Counters().Conflicts > 0, true) })
	table.Sweep()
	table.Withdraw(pfx("192.0.2.0/24"), torA)
	table.Update(pfx("198.51.100.0/24"), torA, hopA)
	expect(t, ns, "198.51.100.0/24 metric 20 via 198.18.0.1\n")
	table.Close()
	if err := fib.Flush(ns.FD(), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, "")
	if static() != was {
		t.Errorf("the static route was %s, is %s", was, static())
	}
}

func TestAnUnresolvableNextHopIsLeftOutAndTriedAgain(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	far := netip.MustParseAddr("198.18.9.1")
	table.Update(pfx("192.0.2.0/24"), torA, far)
	table.Update(pfx("198.51.100.0/24"), torA, far)
	table.Update(pfx("198.51.100.0/24"), torB, hopB)
	table.Update(pfx("203.0.113.0/24"), torA, netip.MustParseAddr("198.18.0.2")) // ourselves
	expect(t, ns, "198.51.100.0/24 metric 20 via 198.18.0.5\n")
	nstest.Eventually(t, 10*time.Second, func() string {
		c := table.Counters()
		return nstest.Want("counters", []any{c.Unresolved >= 3, c.Conflicts, c.Failures, c.Waiting}, []any{true, 0, 0, 3})
	})
	ns.Address(t, "up0", "198.18.9.2/24")
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.9.1\n198.51.100.0/24 metric 20 via 198.18.0.5 198.18.9.1\n")
}

// up1 is a tunnel's device here: encrypted packets go to 203.0.113.9.
func TestWhatIsLearnedOverATunnelGoesThroughItAndNeverCatchesItsOwnPackets(t *testing.T) {
	ns := box(t)
	policy := plain
	policy.ECMP = 1
	policy.Tunnels = []fib.Tunnel{
		{Device: "fra0", Strict: []netip.Prefix{pfx("10.20.0.0/16"), pfx("10.30.0.0/16")}},
		{Device: "up1", Strict: []netip.Prefix{pfx("10.20.0.0/16")}, Endpoints: []netip.Addr{netip.MustParseAddr("203.0.113.9")}},
	}
	table := open(t, ns, policy)
	for _, p := range []string{"10.20.1.0/24", "10.30.1.0/24", "203.0.113.0/24", "0.0.0.0/0", "192.0.2.0/24"} {
		table.Update(pfx(p), torB, hopB)
	}
	table.Update(pfx("10.20.2.0/24"), torA, hopA)   // past the tunnel
	table.Update(pfx("203.0.113.0/25"), torA, hopA) // where the endpoint is
	inside := "10.20.1.0/24 metric 20 via 198.18.0.5\n192.0.2.0/24 metric 20 via 198.18.0.5\n"
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.5\n"+inside+"203.0.113.0/25 metric 20 via 198.18.0.1\n203.0.113.0/24 metric 20 via 198.18.0.5\n")
	table.Withdraw(pfx("203.0.113.0/25"), torA)
	expect(t, ns, inside)
	nstest.Eventually(t, 10*time.Second, func() string { // the kernel knows before the table does
		c := table.Counters()
		return nstest.Want("counters", []any{c.Circular > 0, c.Waiting}, []any{true, 2})
	})
	table.SetPolicy(plain)
	expect(t, ns, "0.0.0.0/0 metric 20 via 198.18.0.5\n10.20.1.0/24 metric 20 via 198.18.0.5\n10.20.2.0/24 metric 20 via 198.18.0.1\n"+
		"10.30.1.0/24 metric 20 via 198.18.0.5\n192.0.2.0/24 metric 20 via 198.18.0.5\n203.0.113.0/24 metric 20 via 198.18.0.5\n")
}
