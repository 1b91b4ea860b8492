package fib_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

var far = netip.MustParseAddr("10.99.0.1") // behind a router

// static is a route of the operator's.
func static(prefix, via string) *netlink.Route {
	_, dst, _ := net.ParseCIDR(prefix)
	return &netlink.Route{Dst: dst, Gw: net.ParseIP(via), Protocol: unix.RTPROT_STATIC}
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// absent is a route that has no way into the kernel; what it lacks there is said, too, of one that is in it.
func absent(prefix, why string, nextHops ...netip.Addr) fib.Route {
	return fib.Route{Prefix: pfx(prefix), Metric: fib.DefaultMetric, Table: unix.RT_TABLE_MAIN, NextHops: nextHops, Absent: true, Problem: why}
}

// refuses waits until these routes have a problem, and no others.
func refuses(t *testing.T, table *fib.Table, want ...fib.Route) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string {
		got := slices.DeleteFunc(table.Routes(fib.Query{}).Routes, func(r fib.Route) bool { return r.Problem == "" })
		return nstest.Want("refusals", got, append([]fib.Route{}, want...))
	})
}

func TestANextHopBehindARouterFollowsItsRoute(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, far)
	refuses(t, table, absent("192.0.2.0/24", "no way to a next hop: no route to 10.99.0.1", far))
	do(t, ns.RouteAdd(static("10.99.0.0/24", "198.18.0.1")))
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
	refuses(t, table)
	do(t, ns.RouteReplace(static("10.99.0.0/24", "198.18.0.5")))
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.5\n")
	do(t, ns.RouteAdd(static("10.99.0.0/25", "198.18.0.1"))) // a longer one
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
	do(t, ns.RouteDel(static("10.99.0.0/25", "198.18.0.1")))
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.5\n")
	both := static("10.99.0.0/24", "")
	both.Gw, both.MultiPath = nil, []*netlink.NexthopInfo{{Gw: net.IPv4(198, 18, 0, 1)}, {Gw: net.IPv4(198, 18, 0, 5)}}
	do(t, ns.RouteReplace(both))
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1 198.18.0.5\n")
	do(t, ns.RouteDel(both))
	expect(t, ns, "")
}

func TestANextHopIsReachedByAnotherLearnedRoute(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torB, far)
	table.Update(pfx("10.99.0.0/24"), torA, netip.MustParseAddr("10.98.0.1"))
	table.Update(pfx("10.98.0.0/24"), torA, hopA)
	all := "10.98.0.0/24 metric 20 via %s\n10.99.0.0/24 metric 20 via %[1]s\n192.0.2.0/24 metric 20 via %[1]s\n"
	expect(t, ns, fmt.Sprintf(all, "198.18.0.1"))
	table.Update(pfx("10.98.0.0/24"), torA, hopB)
	expect(t, ns, fmt.Sprintf(all, "198.18.0.5"))
	table.Withdraw(pfx("10.98.0.0/24"), torA)
	expect(t, ns, "")
}

// Each of these would come, change how its next hop is reached, go for that, and come again.
func TestARouteNeverLeadsThroughItself(t *testing.T) {
	ns := box(t)
	do(t, ns.RouteAdd(static("0.0.0.0/0", "198.18.0.5")))
	table := open(t, ns, plain)
	table.Update(pfx("10.99.0.0/16"), torA, far)
	refuses(t, table, absent("10.99.0.0/16", "no way to a next hop: 10.99.0.1 would be reached by the route itself", far))
	table.Withdraw(pfx("10.99.0.0/16"), torA)
	refuses(t, table)

	// Two that lead to each other: one has its way by the default route, and the other one not through it.
	table.Update(pfx("10.1.0.0/16"), torA, netip.MustParseAddr("10.2.0.1"))
	expect(t, ns, "10.1.0.0/16 metric 20 via 198.18.0.5\n")
	table.Update(pfx("10.2.0.0/16"), torA, netip.MustParseAddr("10.1.0.1"))
	refuses(t, table, absent("10.2.0.0/16", "no way to a next hop: 10.1.0.1 would be reached by the route itself", netip.MustParseAddr("10.1.0.1")))
	expect(t, ns, "10.1.0.0/16 metric 20 via 198.18.0.5\n")

	// A next hop on a link stays there, whatever is learned around it.
	table.Update(pfx("198.18.0.0/31"), torA, hopA)
	expect(t, ns, "10.1.0.0/16 metric 20 via 198.18.0.5\n198.18.0.0/31 metric 20 via 198.18.0.1\n")
	ns.Address(t, "up0", "203.0.113.1/32") // and is looked up again
	table.Update(pfx("198.51.100.0/24"), torA, hopB)
	expect(t, ns, "10.1.0.0/16 metric 20 via 198.18.0.5\n198.18.0.0/31 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.5\n")
}

func TestALinkThatFlapsGetsItsRoutesBack(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("198.51.100.0/24"), torA, hopA)
	table.Update(pfx("198.51.100.0/24"), torB, hopB)
	all := "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.1 198.18.0.5\n"
	expect(t, ns, all)
	up0, err := ns.LinkByName("up0")
	do(t, err)
	for range 30 { // some of it is over before anybody looks
		do(t, ns.LinkSetDown(up0))
		do(t, ns.LinkSetUp(up0))
		expect(t, ns, all)
	}
	do(t, ns.LinkSetDown(up0))
	expect(t, ns, "198.51.100.0/24 metric 20 via 198.18.0.5\n")
	lacking := absent("198.51.100.0/24", "no way to a next hop: no route to 198.18.0.1", hopB)
	lacking.Absent = false
	refuses(t, table, absent("192.0.2.0/24", "no way to a next hop: no route to 198.18.0.1", hopA), lacking)
	do(t, ns.LinkSetUp(up0))
	expect(t, ns, all)
	refuses(t, table)
}
