package path

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestRoutesOfAWithheldPeerAreKeptAwayButForTheWaysOfProbes(t *testing.T) {
	pfx := netip.MustParsePrefix
	carried := func(list ...Carried) iter.Seq[Carried] { return slices.Values(list) }
	a, b := Carried{"a", []netip.Prefix{pfx("10.20.0.0/16"), pfx("10.20.0.9/32")}}, Carried{"b", []netip.Prefix{pfx("10.30.0.0/16")}}
	routes := []Route{{Prefix: pfx("10.20.0.0/16"), Metric: 7}, {Prefix: pfx("10.20.0.0/16"), Table: Table},
		{Prefix: pfx("10.20.0.9/32"), Table: ProbeTable}, {Prefix: pfx("10.30.0.0/16")}}
	var w Withheld
	for _, c := range []struct {
		name     string
		withheld map[string][]string
		more     []string // tunnels
		tunnel   string
		carries  iter.Seq[Carried]
		away     []Route
	}{
		{"nobody", nil, nil, "t", carried(a, b), nil},
		{"one", map[string][]string{"t": {"a"}}, []string{"t"}, "t", carried(a, b), routes[:2]},
		{"the same again", map[string][]string{"t": {"a"}}, nil, "t", carried(a, b), routes[:2]},
		{"of another tunnel", map[string][]string{"t": {"a"}}, nil, "u", carried(a, b), nil},
		{"whose prefixes have another peer now", map[string][]string{"t": {"a"}}, nil, "t", carried(Carried{"a", nil}, Carried{"b", a.Prefixes}), nil},
		{"two, of several tunnels", map[string][]string{"t": {"a", "b"}, "u": {"x"}}, []string{"t", "u"}, "t", carried(a, b), []Route{routes[0], routes[1], routes[3]}},
		{"another one, and one that is back", map[string][]string{"t": {"b"}, "u": {"x"}}, nil, "t", carried(a, b), routes[3:]},
		{"nobody any more", nil, nil, "t", carried(a, b), nil},
	} {
		if more := w.Set(c.withheld); !slices.Equal(more, c.more) {
			t.Errorf("%s: routes are to be taken from %v, want %v", c.name, more, c.more)
		}
		for _, tunnel := range c.more {
			w.gone(tunnel)
		}
		keep, away := w.Keep(c.tunnel, routes, c.carries)
		if !slices.Equal(away, c.away) || len(keep)+len(away) != len(routes) {
			t.Errorf("%s: %v stay away and %v stay, want %v away", c.name, away, keep, c.away)
		}
		for _, r := range routes {
			if got := w.Holds(c.tunnel, r, c.carries); got != slices.Contains(c.away, r) {
				t.Errorf("%s: of %v: %v", c.name, r, got)
			}
		}
	}
}

func TestRoutesThatAreStillThereAreDueAgain(t *testing.T) {
	s := newSpace(t)
	pfx := netip.MustParsePrefix
	links := NewLinks(s.nl, s.nl, func(netlink.Link) bool { return true }, nil)
	to := Route{Prefix: pfx("10.20.0.0/16"), Metric: 7}
	if err := links.AddRoute(s.link, to); err != nil {
		t.Fatal(err)
	}
	var w Withheld
	deaf := errors.New("the device does not answer")
	peers := map[string][]string{"fra1": {"a"}, "gone": {"b"}}
	for i, c := range []struct {
		peers map[string][]string
		look  error // of fra1
		due   []string
		left  int // routes
	}{
		{peers, deaf, []string{"fra1", "gone"}, 1},
		{peers, deaf, []string{"fra1"}, 1},
		{nil, deaf, nil, 1},
		{peers, deaf, []string{"fra1", "gone"}, 1},
		{peers, nil, []string{"fra1"}, 0},
		{peers, nil, nil, 0},
	} {
		due := w.Set(c.peers)
		if !slices.Equal(due, c.due) {
			t.Errorf("%d: due are %v, want %v", i, due, c.due)
		}
		err := w.Withdraw(links, due, func(tunnel string) (netlink.Link, iter.Seq[Carried], error) {
			if tunnel == "gone" {
				return nil, nil, unix.ENODEV
			}
			return s.link, slices.Values([]Carried{{"a", []netip.Prefix{to.Prefix}}}), c.look
		})
		if wants := slices.Contains(due, "fra1") && c.look != nil; errors.Is(err, deaf) != wants || !wants && err != nil {
			t.Errorf("%d: %v", i, err)
		}
		routes, err := links.Routes()
		if have := routes[s.link.Attrs().Index]; err != nil || len(have) != c.left {
			t.Errorf("%d: %v are there, %v", i, have, err)
		}
	}
}
