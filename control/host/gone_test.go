package host

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// They come in order: what is heard before a deletion that is waited for is all there was.
func TestDeletionsOfOursAreHeardAndNoOthers(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	ip(t, "link set eth0 up")
	ip(t, "link set tor0 up")
	ip(t, "addr add 198.18.0.2/24 dev eth0")
	ip(t, "addr add 2001:db8::2/64 dev eth0 nodad")
	for _, route := range []string{
		"192.0.2.0/24 via 198.18.0.1 proto 188", "192.0.2.0/24 via 198.18.0.1 metric 7 table 187 proto 187", "192.0.2.0/25 via 198.18.0.1 proto 186",
		"192.0.2.128/25 via 198.18.0.1 proto static", "default via 198.18.0.1 proto 188", "blackhole 10.9.0.0/16 metric 4294967295 proto 187",
	} {
		ip(t, "route add "+route)
	}
	ip(t, "-6 route add 2001:db8:1::/48 via 2001:db8::1 proto 188")
	ip(t, "rule add priority 18800 iif eth0 lookup main proto 188")
	ip(t, "-6 rule add priority 18801 iif eth0 lookup main proto 188")
	ip(t, "rule add priority 18802 iif eth0 lookup main")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := make(chan Gone, 100)
	links, err := h.links()
	if err != nil {
		t.Fatal(err)
	}
	indexes := map[string]int{"eth0": indexOf(links, "eth0"), "eth1": indexOf(links, "eth1")}
	events, err := h.Watch(ctx, func(g Gone) {
		if at := indexes[g.Link]; at != 0 && g.Index != at || g.Link == "" && g.Index != 0 {
			t.Errorf("%+v has not the index of its link, %d", g, at)
		}
		g.Index = 0
		heard <- g
	}, 188, 187)
	if err != nil {
		t.Fatal(err)
	}
	await := func(want ...Gone) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for len(want) > 0 {
			select {
			case g := <-heard:
				switch {
				case g == want[0]:
					want = want[1:]
				case g.Link != "tor1" && !(g.Address.IsValid() && g.Address.Addr().IsLinkLocalUnicast()): // what goes with a link
					t.Fatalf("heard %+v, want %+v", g, want)
				}
			case <-deadline:
				t.Fatalf("not heard in 10 s: %+v", want)
			}
		}
	}
	for _, words := range []string{
		"route del 192.0.2.0/25", "route del 192.0.2.128/25", "rule del priority 18802", "route add 198.51.100.0/24 via 198.18.0.1 proto 188", // not ours, or no deletion
		"route del 192.0.2.0/24 proto 188", "route del 192.0.2.0/24 table 187", "route del default", "route del blackhole 10.9.0.0/16", "-6 route del 2001:db8:1::/48",
		"rule del priority 18800", "-6 rule del priority 18801", "addr del 2001:db8::2/64 dev eth0", "addr del 198.18.0.2/24 dev eth0",
	} {
		ip(t, words)
	}
	await(Gone{Route: pfx("192.0.2.0/24"), Table: unix.RT_TABLE_MAIN}, Gone{Route: pfx("192.0.2.0/24"), Table: 187, Metric: 7}, Gone{Route: pfx("0.0.0.0/0"), Table: unix.RT_TABLE_MAIN},
		Gone{Route: pfx("10.9.0.0/16"), Table: unix.RT_TABLE_MAIN, Metric: 1<<32 - 1}, Gone{Route: pfx("2001:db8:1::/48"), Table: unix.RT_TABLE_MAIN, Metric: 1024},
		Gone{Rule: 18800}, Gone{Rule: 18801, IPv6: true}, Gone{Address: pfx("2001:db8::2/64"), Link: "eth0"}, Gone{Address: pfx("198.18.0.2/24"), Link: "eth0"})
	ip(t, "link set eth0 mtu 1400")
	ip(t, "link set eth0 down")
	await(Gone{Link: "eth0", Down: true})
	ip(t, "link del eth1")
	until(t, events, func(e Event) bool { return e.Link == "eth1" && !e.Exists })
	if len(heard) == 0 {
		t.Error("the event of a link comes before its deletion is told")
	}
	await(Gone{Link: "eth1", Down: true}, Gone{Link: "eth1"})
}

func TestRoutesThatAnotherTakesThePlaceOfAreHeard(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	h := open(t, t.TempDir())
	ip(t, "link set eth0 up")
	ip(t, "link set tor0 up")
	ip(t, "addr add 198.18.0.2/24 dev eth0")
	ip(t, "addr add 2001:db8::2/64 dev eth0 nodad")
	ip(t, "route add 192.0.2.0/24 via 198.18.0.1 proto 188")
	ip(t, "route add 192.0.2.0/24 via 198.18.0.1 metric 7 table 187 proto 187")
	ip(t, "-6 route add 2001:db8:1::/48 via 2001:db8::1 proto 187")
	heard := make(chan Gone, 100)
	if err := h.WatchReplaced(t.Context(), func(g Gone) { heard <- g }, func() { t.Error("messages were lost") }, 188, 187, 186); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		"route add 198.51.100.0/24 via 198.18.0.1", "route replace 198.51.100.128/25 via 198.18.0.1", // nothing was there
		"route replace 198.51.100.0/24 via 198.18.0.3 proto 186", "route replace 192.0.2.0/24 via 198.18.0.3 proto 188", "route del 198.51.100.0/24", // ours
		"route replace 192.0.2.0/24 via 198.18.0.4", "route change 192.0.2.0/24 metric 7 table 187 via 198.18.0.4", "-6 route replace 2001:db8:1::/48 via 2001:db8::4 proto static",
	} {
		ip(t, words)
	}
	for _, want := range []Gone{
		{Route: pfx("192.0.2.0/24"), Table: unix.RT_TABLE_MAIN}, {Route: pfx("192.0.2.0/24"), Table: 187, Metric: 7},
		{Route: pfx("2001:db8:1::/48"), Table: unix.RT_TABLE_MAIN, Metric: 1024},
	} {
		select {
		case g := <-heard:
			if g != want {
				t.Errorf("heard %+v, want %+v", g, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not heard in 10 s: %+v", want)
		}
	}
}
