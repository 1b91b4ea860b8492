package fib_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

// Many routes by two next hops: all of them in, then one of the two gone and back, then a link down. Each figure is of one time, whatever b.N.
func BenchmarkRoutesByAGroup(b *testing.B) {
	const routes = 20_000
	ns := box(b)
	do(b, ns.RouteAdd(static("10.99.0.0/24", "198.18.0.1")))
	table := open(b, ns, plain)
	prefix := func(i int) netip.Prefix {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 11<<24+uint32(i)<<8)
		return netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	began := time.Now()
	for i := range routes {
		table.Update(prefix(i), torB, hopB)
		table.Update(prefix(i), torA, far)
	}
	// Whoever lists all routes holds the writer up, so that is done once in a while, and all else is asked of the kernel by one route.
	for tick := time.NewTicker(200 * time.Millisecond); table.Routes(fib.Query{Limit: 1}).Total < routes || table.Counters().Waiting > 0; {
		<-tick.C
	}
	nextHops := func(metric string, want int) {
		nstest.Eventually(b, time.Minute, func() string {
			list, err := ns.RouteGetWithOptions(net.IPv4(11, 0, 0, 1), &netlink.RouteGetOptions{FIBMatch: true})
			if err != nil {
				return err.Error()
			}
			return nstest.Want(metric, max(1, len(list[0].MultiPath)), want)
		})
		b.ReportMetric(time.Since(began).Seconds(), metric)
		began = time.Now()
	}
	nextHops("s-installed", 2)
	do(b, ns.RouteDel(static("10.99.0.0/24", "198.18.0.1")))
	nextHops("s-one-gone", 1)
	do(b, ns.RouteAdd(static("10.99.0.0/24", "198.18.0.1")))
	nextHops("s-back", 2)
	up1, err := ns.LinkByName("up1")
	do(b, err)
	began = time.Now()
	do(b, ns.LinkSetDown(up1))
	nextHops("s-link-down", 1)
}
