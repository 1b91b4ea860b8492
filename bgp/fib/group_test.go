package fib_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

// ip runs ip(8) in a namespace.
func ip(t *testing.T, ns *nstest.NS, args string) string {
	t.Helper()
	var out []byte
	ns.Do(t, func() (err error) {
		if out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			err = fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return err
	})
	return string(out)
}

// objects waits until the namespace has these nexthop objects, with ids as the kernel tells them from what else is there.
func objects(t *testing.T, ns *nstest.NS, want string) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string {
		got := ip(t, ns, "nexthop show")
		for i, line := range strings.Split(strings.TrimSpace(got), "\n") {
			got = strings.ReplaceAll(got, strings.TrimPrefix(strings.Split(line+" ", " via")[0], "id "), fmt.Sprint(i))
		}
		return nstest.Want("objects", got, want)
	})
}

// changes counts what the kernel tells of IPv4 routes until the caller is done.
func changes(t *testing.T, ns *nstest.NS) func() int {
	t.Helper()
	updates, done := make(chan netlink.RouteUpdate, 10000), make(chan struct{})
	do(t, netlink.RouteSubscribeAt(ns.FD(), updates, done))
	return func() (n int) {
		close(done)
		for u := range updates {
			if u.Protocol == fib.Protocol {
				n++
			}
		}
		return n
	}
}

func TestRoutesOfOneSetOfNextHopsShareAGroup(t *testing.T) {
	ns := box(t)
	do(t, ns.RouteAdd(static("10.99.0.0/24", "198.18.0.1")))
	table := open(t, ns, plain)
	many := func(via string) (routes string) {
		for i := range 200 {
			routes += fmt.Sprintf("10.0.%d.0/24 metric 20 via %s\n", i, via)
		}
		return routes
	}
	for i := range 200 {
		prefix := pfx(fmt.Sprintf("10.0.%d.0/24", i))
		table.Update(prefix, torA, far)
		table.Update(prefix, torB, hopB)
	}
	expect(t, ns, many("198.18.0.1 198.18.0.5"))
	table.Update(pfx("10.0.0.0/24"), torB, hopB) // again: whatever was done meanwhile is done
	// What only one of both had announced at first had a group of its own, which is gone.
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("objects", strings.Count(ip(t, ns, "nexthop show"), "id "), 3)
	})
	before := ip(t, ns, "nexthop show")

	count := changes(t, ns)
	compatible(t, ns, "0")                                   // or the kernel tells of each route, though it changes none
	do(t, ns.RouteDel(static("10.99.0.0/24", "198.18.0.1"))) // a member goes
	nexthops := func(want int) {
		nstest.Eventually(t, 10*time.Second, func() string {
			return nstest.Want("next hops", len(table.Routes(fib.Query{}).Routes[0].NextHops), want)
		})
	}
	nexthops(1)
	compatible(t, ns, "1")
	expect(t, ns, many("198.18.0.5"))
	compatible(t, ns, "0")
	do(t, ns.RouteAdd(static("10.99.0.0/24", "198.18.0.1"))) // and comes
	nexthops(2)
	compatible(t, ns, "1")
	expect(t, ns, many("198.18.0.1 198.18.0.5"))
	if n := count(); n != 0 {
		t.Errorf("the kernel told of %d changes of routes", n)
	}
	if groups(before) != groups(ip(t, ns, "nexthop show")) {
		t.Errorf("objects were\n%s, are\n%s", before, ip(t, ns, "nexthop show"))
	}
	for i := range 200 {
		table.Withdraw(pfx(fmt.Sprintf("10.0.%d.0/24", i)), torA)
		table.Withdraw(pfx(fmt.Sprintf("10.0.%d.0/24", i)), torB)
	}
	expect(t, ns, "")
	objects(t, ns, "")
}

// compatible says whether the kernel shows routes by objects as if they had next hops of their own.
func compatible(t *testing.T, ns *nstest.NS, mode string) {
	t.Helper()
	ns.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte(mode), 0o600) })
}

// groups are the ids of those in a list of objects.
func groups(list string) (ids string) {
	for _, line := range strings.Split(list, "\n") {
		if id, _, is := strings.Cut(line, " group "); is {
			ids += id + "\n"
		}
	}
	return ids
}

func TestIPv4GoesByTwoIPv6NextHops(t *testing.T) { // RFC 8950
	ns := box(t)
	ns.Address(t, "up1", "2001:db8:2::2/64")
	table := open(t, ns, plain)
	for _, p := range []string{"192.0.2.0/24", "2001:db8:100::/48"} {
		table.Update(pfx(p), torA, hop6)
		table.Update(pfx(p), torB, netip.MustParseAddr("fe80::1%up1"))
	}
	nstest.Eventually(t, 10*time.Second, func() string {
		got := ip(t, ns, "route show proto 186") + ip(t, ns, "-6 route show proto 186")
		for _, want := range []string{"via inet6 2001:db8::1 dev up0", "via inet6 fe80::1 dev up1", "nexthop via 2001:db8::1 dev up0", "nexthop via fe80::1 dev up1"} {
			if !strings.Contains(got, want) {
				return "no " + want + " in\n" + got
			}
		}
		return nstest.Want("table", table.Routes(fib.Query{}).Routes, "[{192.0.2.0/24 20 254 [2001:db8::1 fe80::1%up1] false false } {2001:db8:100::/48 20 254 [2001:db8::1 fe80::1%up1] false false }]")
	})
	nstest.Eventually(t, 10*time.Second, func() string { // what the routes went by before goes after them
		return nstest.Want("groups for the two", strings.Count(ip(t, ns, "nexthop show"), "group"), 1)
	})
}

func TestARestartAdoptsObjectsAndRoutes(t *testing.T) {
	ns := box(t)
	before := open(t, ns, plain)
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "2001:db8:100::/48"} {
		if hop := hopA; pfx(p).Addr().Is4() {
			before.Update(pfx(p), torA, hop)
			before.Update(pfx(p), torB, hopB)
		} else {
			before.Update(pfx(p), torA, hop6)
		}
	}
	before.Update(pfx("203.0.113.0/24"), torA, hopA)
	all := "192.0.2.0/24 metric 20 via 198.18.0.1 198.18.0.5\n198.51.100.0/24 metric 20 via 198.18.0.1 198.18.0.5\n" +
		"203.0.113.0/24 metric 20 via 198.18.0.1\n2001:db8:100::/48 metric 20 via 2001:db8::1\n"
	expect(t, ns, all)
	before.Close()
	was := ip(t, ns, "nexthop show")

	count := changes(t, ns)
	after := open(t, ns, plain)
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24"} {
		after.Update(pfx(p), torB, hopB)
		after.Update(pfx(p), torA, hopA)
	}
	after.Update(pfx("2001:db8:100::/48"), torA, hop6)
	nstest.Eventually(t, 10*time.Second, func() string {
		stale := []string{}
		for _, r := range after.Routes(fib.Query{}).Routes {
			if r.Stale {
				stale = append(stale, r.Prefix.String())
			}
		}
		return nstest.Want("stale", stale, "[203.0.113.0/24]")
	})
	expect(t, ns, all)
	if n := count(); n > 4 { // where one of two next hops was seen first, there and back
		t.Errorf("the kernel told of %d changes of routes", n)
	}
	after.Sweep()
	expect(t, ns, strings.Replace(all, "203.0.113.0/24 metric 20 via 198.18.0.1\n", "", 1))
	nstest.Eventually(t, 10*time.Second, func() string { // two groups, three members
		return nstest.Want("objects", strings.Count(ip(t, ns, "nexthop show"), "id "), 5)
	})
	t.Logf("objects before\n%s, and after\n%s", was, ip(t, ns, "nexthop show"))
	after.Close()
	do(t, fib.Flush(ns.FD(), 0))
	expect(t, ns, "")
	objects(t, ns, "")
}

func TestRoutesOfAVersionWithoutObjectsAreTakenOver(t *testing.T) {
	ns := box(t)
	for _, r := range []string{"192.0.2.0/24 proto 186 metric 20 nexthop via 198.18.0.1 nexthop via 198.18.0.5",
		"198.51.100.0/24 proto 186 metric 20 via 198.18.0.1", "2001:db8:100::/48 proto 186 metric 20 via 2001:db8::1"} {
		ip(t, ns, "route add "+r)
	}
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("2001:db8:100::/48"), torA, hop6)
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.1\n2001:db8:100::/48 metric 20 via 2001:db8::1\n")
	table.Sweep()
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n2001:db8:100::/48 metric 20 via 2001:db8::1\n")
	if got := ip(t, ns, "route show proto 186"); !strings.Contains(got, "nhid") {
		t.Errorf("routes are\n%s", got)
	}
}

func TestForeignObjectsAreNotTouched(t *testing.T) {
	ns := box(t)
	foreign := "id 7 via 198.18.0.1 dev up0 scope link proto bgp \nid 3120562177 via 198.18.0.5 dev up1 scope link proto static \n"
	ip(t, ns, "nexthop add id 7 via 198.18.0.1 dev up0 proto 186")
	ip(t, ns, "nexthop add id 3120562177 via 198.18.0.5 dev up1 proto static") // where ours begin
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
	table.Withdraw(pfx("192.0.2.0/24"), torA)
	expect(t, ns, "")
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("objects", ip(t, ns, "nexthop show"), foreign) })
	table.Close()
	do(t, fib.Flush(ns.FD(), 0))
	if got := ip(t, ns, "nexthop show"); got != foreign {
		t.Errorf("objects are\n%s, were\n%s", got, foreign)
	}
}

func TestWhatSomebodyElseRemovesComesBack(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("192.0.2.0/24"), torB, hopB)
	table.Update(pfx("2001:db8:100::/48"), torA, hop6)
	all := "192.0.2.0/24 metric 20 via 198.18.0.1 198.18.0.5\n2001:db8:100::/48 metric 20 via 2001:db8::1\n"
	expect(t, ns, all)
	for _, harm := range []string{"nexthop flush", "route del 192.0.2.0/24", "-6 route del 2001:db8:100::/48"} {
		ip(t, ns, harm)
		expect(t, ns, all)
	}
}

// What only a dead neighbor told of goes in one step; what another one says of the same next hop counts.
func TestADeadNeighborsNextHopGoesFromAllRoutesAtOnce(t *testing.T) {
	ns := box(t)
	table := open(t, ns, plain)
	both := ""
	for i := range 200 {
		prefix := pfx(fmt.Sprintf("10.0.%d.0/24", i))
		table.Update(prefix, torA, hopA)
		table.Update(prefix, torB, hopB)
		both += fmt.Sprintf("10.0.%d.0/24 metric 20 via 198.18.0.1 198.18.0.5\n", i)
	}
	expect(t, ns, both)
	nexthops := func(want int) {
		nstest.Eventually(t, 10*time.Second, func() string {
			return nstest.Want("next hops", len(table.Routes(fib.Query{}).Routes[0].NextHops), want)
		})
	}
	count := changes(t, ns)
	compatible(t, ns, "0")
	table.Dead(torA.Neighbor, true)
	nexthops(1)
	table.Dead(torA.Neighbor, false)
	nexthops(2)
	if n := count(); n != 0 {
		t.Errorf("the kernel told of %d changes of routes", n)
	}
	compatible(t, ns, "1")
	table.Update(pfx("192.0.2.0/24"), fib.Source{Neighbor: netip.MustParseAddr("198.51.100.1")}, hopA) // a route server's client
	table.Dead(torA.Neighbor, true)
	table.Dead(torB.Neighbor, true)
	one := ""
	for i := range 200 {
		one += fmt.Sprintf("10.0.%d.0/24 metric 20 via 198.18.0.1\n", i)
	}
	expect(t, ns, one+"192.0.2.0/24 metric 20 via 198.18.0.1\n")
}

// Who told of a next hop changes after its neighbor died, both ways.
func TestANextHopOfADeadNeighborComesAndGoesWithWhoElseTellsOfIt(t *testing.T) {
	ns, _ := quietBox(t, 2)
	table := open(t, ns, plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
	table.Dead(torA.Neighbor, true)
	expect(t, ns, "")
	table.Update(pfx("198.51.100.0/24"), torB, hopA)
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n198.51.100.0/24 metric 20 via 198.18.0.1\n")
	table.Withdraw(pfx("198.51.100.0/24"), torB)
	expect(t, ns, "")
	table.Dead(torA.Neighbor, false)
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.1\n")
}
