package torsim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bgp"
	"sluice/bgp/torsim"
	"sluice/tests/nstest"
)

func TestMain(m *testing.M) {
	if role := nstest.Role(); role != "" {
		if err := serve(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve is the main of the children: a ToR, or a gateway ("restarted": with graceful restart).
func serve(role string) error {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	tor := torsim.New(log)
	gw := bgp.New(log, bgp.Options{Restarting: role == "restarted"})
	return nstest.Serve(map[string]nstest.Handler{
		"start": func(arg json.RawMessage) (any, error) {
			var cfg torsim.Config
			if err := json.Unmarshal(arg, &cfg); err != nil {
				return nil, err
			}
			return nil, tor.Start(ctx, cfg)
		},
		"table":    func(json.RawMessage) (any, error) { return tor.Table() },
		"sessions": func(json.RawMessage) (any, error) { return tor.Sessions(ctx) },
		"apply": func(arg json.RawMessage) (any, error) {
			var want bgp.State
			if err := json.Unmarshal(arg, &want); err != nil {
				return nil, err
			}
			for _, op := range bgp.Diff(bgp.State{}, want) {
				if err := gw.Apply(ctx, op); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
	})
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// kernel prints the routes of protocol 186.
func kernel(t *testing.T, ns *nstest.NS) string {
	routes, err := ns.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 186}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range routes {
		out = append(out, fmt.Sprint(r.Dst, " ", r.Gw))
	}
	return strings.Join(out, ", ")
}

func TestTheToRKeepsAGatewaysRoutesWhileItRestarts(t *testing.T) {
	torNS, gwNS := nstest.New(t), nstest.New(t)
	nstest.Veth(t, torNS, "gw", gwNS, "up0")
	torNS.Address(t, "gw", "198.18.0.1/24", "2001:db8:1::1/64")
	gwNS.Address(t, "up0", "198.18.0.2/24", "2001:db8:1::2/64")
	session := bgp.Neighbor{IPv4: true, IPv6: true, HoldTime: 9 * time.Second}
	toGW, toToR := session, session
	toGW.Name, toGW.Address, toGW.ASN, toGW.NextHop6 = "edge-1", addr("198.18.0.2"), 65010, addr("2001:db8:1::1")
	toToR.Name, toToR.Address, toToR.ASN, toToR.NextHop6 = "tor-a", addr("198.18.0.1"), 65000, addr("2001:db8:1::2")
	toToR.RestartTime = 30 * time.Second
	everything := bgp.Learn{Accept: []bgp.PrefixMatch{{Prefix: pfx("0.0.0.0/0"), LE: 32}}}
	want := bgp.State{
		ASN: 65010, RouterID: addr("198.18.0.2"), Port: 179, Neighbors: []bgp.Neighbor{toToR}, Learn: everything,
		Paths: []bgp.Path{
			{Prefix: pfx("203.0.113.0/24"), Communities: []uint32{65010<<16 | 100}}, {Prefix: pfx("2001:db8:100::/48")},
		},
	}

	tor := torNS.Child(t, "tor")
	nstest.Must[any](t, tor, "start", torsim.Config{
		ASN: 65000, RouterID: addr("198.18.0.1"), Port: 179, Neighbors: []bgp.Neighbor{toGW},
		Announce: []netip.Prefix{pfx("0.0.0.0/0")}, Install: everything,
	})
	table := func(want string) {
		t.Helper()
		nstest.Eventually(t, 20*time.Second, func() string {
			return nstest.Want("the ToR's table", nstest.Must[[]torsim.Entry](t, tor, "table", nil), want)
		})
	}
	routed := func(ns *nstest.NS, want string) {
		t.Helper()
		nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("kernel", kernel(t, ns), want) })
	}
	gw := gwNS.Child(t, "gateway")
	nstest.Must[any](t, gw, "apply", want)
	table("[{203.0.113.0/24 198.18.0.2 [4260495460] false} {2001:db8:100::/48 2001:db8:1::2 [] false}]")
	routed(torNS, "203.0.113.0/24 198.18.0.2")
	routed(gwNS, "0.0.0.0/0 198.18.0.1")

	gw.Kill()
	table("[{203.0.113.0/24 198.18.0.2 [4260495460] true} {2001:db8:100::/48 2001:db8:1::2 [] true}]")
	again := gwNS.Child(t, "restarted")
	want.Paths = want.Paths[:1]
	begin := time.Now()
	nstest.Must[any](t, again, "apply", want)
	// Stale, then told again; what is not announced again goes after End-of-RIB. No look sees the prefix missing.
	for done := false; !done; {
		got := nstest.Must[[]torsim.Entry](t, tor, "table", nil)
		if len(got) == 0 || got[0].Prefix != pfx("203.0.113.0/24") || kernel(t, torNS) != "203.0.113.0/24 198.18.0.2" {
			t.Fatalf("the ToR lost the route during the restart: %v, kernel %q", got, kernel(t, torNS))
		}
		done = len(got) == 1 && !got[0].Stale
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("still not announced again: %v", got)
		}
	}
	t.Logf("announced again after %v", time.Since(begin).Round(10*time.Millisecond))
	if st := nstest.Must[[]bgp.NeighborStatus](t, tor, "sessions", nil); len(st) != 1 || st[0].Name != "edge-1" || st[0].State != "established" {
		t.Errorf("sessions: %+v", st)
	}
}
