package bgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// A neighbor of our own AS announces what is behind another router, whose address only the operator's route leads to.
func TestANextHopOfIBGPIsFollowed(t *testing.T) {
	s := newSite(t, 2)
	nstest.StartBird(t, s.tors[0], `router id 198.18.0.1;
protocol static { ipv4;
  route 192.0.2.0/24 blackhole;
  route 198.51.100.0/24 blackhole;
}
protocol bgp sluice {
  local 198.18.0.1 as 65010;
  neighbor 198.18.0.2 as 65010;
  hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 { import all; export filter { if net = 192.0.2.0/24 then bgp_next_hop = 10.99.0.1; accept; }; };
}
`)
	gw := s.gw.Child(t, fresh)
	state := gateway(1)
	state.Learn, state.Neighbors[0].ASN, state.Neighbors[0].IPv6 = everything(), state.ASN, false
	apply(t, gw, state)
	established(t, gw, "tor-a")
	s.installs(t, "198.51.100.0/24 198.18.0.1\n")
	shows(t, gw, []bgp.RouteStatus{
		{Prefix: path("192.0.2.0/24").Prefix, NextHops: addrs("10.99.0.1"), Metric: 20, Absent: true, Problem: "no way to a next hop: no route to 10.99.0.1"},
		{Prefix: path("198.51.100.0/24").Prefix, NextHops: addrs("198.18.0.1"), Metric: 20},
	})
	_, dst, _ := net.ParseCIDR("10.99.0.0/24")
	static := route(dst, "198.18.1.1")
	if err := s.gw.RouteAdd(static); err != nil {
		t.Fatal(err)
	}
	s.installs(t, "192.0.2.0/24 198.18.1.1\n198.51.100.0/24 198.18.0.1\n")
	if err := s.gw.RouteDel(static); err != nil {
		t.Fatal(err)
	}
	s.installs(t, "198.51.100.0/24 198.18.0.1\n")
	established(t, gw, "tor-a")
}

// route is one of the operator's.
func route(to *net.IPNet, via string) *netlink.Route {
	return &netlink.Route{Dst: to, Gw: net.ParseIP(via)}
}

// shows waits until these are the routes that are shown.
func shows(t *testing.T, c *nstest.Child, want []bgp.RouteStatus) {
	t.Helper()
	nstest.Eventually(t, 15*time.Second, func() string {
		return nstest.Want("routes", nstest.Must[[]bgp.RouteStatus](t, c, "routes", nil), want)
	})
}

// RFC 8950: one session over IPv6 carries both families, and IPv4 goes by IPv6 gateways, two of them.
func TestIPv4OverIPv6NextHops(t *testing.T) {
	s := newSite(t, 2)
	gw := s.gw.Child(t, fresh)
	state := gateway(2)
	state.Learn = everything()
	for i := range 2 {
		nstest.StartBird(t, s.tors[i], strings.Replace(torConfig(i, fmt.Sprintf("2001:db8:%d::1", i+1), fmt.Sprintf("2001:db8:%d::2", i+1), "",
			"192.0.2.0/24", "2001:db8:100::/48"), "ipv4 { import all;", "ipv4 { extended next hop on; import all;", 1))
		state.Neighbors[i].Address, state.Neighbors[i].NextHop6 = addr(fmt.Sprintf("2001:db8:%d::1", i+1)), netip.Addr{}
	}
	apply(t, gw, state)
	established(t, gw, "tor-a", "tor-b")
	shows(t, gw, []bgp.RouteStatus{
		{Prefix: path("192.0.2.0/24").Prefix, NextHops: addrs("2001:db8:1::1", "2001:db8:2::1"), Metric: 20},
		{Prefix: path("2001:db8:100::/48").Prefix, NextHops: addrs("2001:db8:1::1", "2001:db8:2::1"), Metric: 20},
	})
	routes, err := s.gw.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 186}, netlink.RT_FILTER_PROTOCOL)
	if err != nil || len(routes) != 1 || len(routes[0].MultiPath) != 2 || routes[0].MultiPath[0].Via == nil {
		t.Errorf("routes %v, %v", routes, err)
	}
}
