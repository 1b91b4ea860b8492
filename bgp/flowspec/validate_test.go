package flowspec_test

import (
	"errors"
	"net/netip"
	"testing"

	"sluice/bgp/flowspec"
)

// routes are a RIB, the slow way.
type routes []flowspec.Route

func (r routes) Best(p netip.Prefix) (best flowspec.Route, found bool) {
	for _, route := range r {
		if route.Prefix.Bits() <= p.Bits() && route.Prefix.Contains(p.Addr()) && (!found || route.Prefix.Bits() > best.Prefix.Bits()) {
			best, found = route, true
		}
	}
	return best, found
}

func (r routes) Inside(p netip.Prefix, yield func(flowspec.Route) bool) {
	for _, route := range r {
		if route.Prefix.Bits() > p.Bits() && p.Contains(route.Prefix.Addr()) && !yield(route) {
			return
		}
	}
}

func TestValidity(t *testing.T) {
	route := func(prefix string, from netip.Addr, as uint32) flowspec.Route {
		return flowspec.Route{Prefix: netip.MustParsePrefix(prefix), Originator: from, FirstAS: as}
	}
	ours := flowspec.Route{Prefix: netip.MustParsePrefix("203.0.113.0/24")}
	eBGP := flowspec.Origin{Neighbor: torA, Originator: torA, External: true, FirstAS: 65000}
	const to24, to32, no = "01 18 cb 00 71", "01 20 cb 00 71 35", "03 81 11"
	for _, c := range []struct {
		name string
		rule string
		from flowspec.Origin
		rib  routes
		want string
	}{
		{"its own best route", to32, eBGP, routes{route("203.0.113.0/24", torA, 65000)}, ""},
		{"the default route", to32, eBGP, routes{route("0.0.0.0/0", torA, 65000)}, ""},
		{"the longest decides", to32, eBGP, routes{route("0.0.0.0/0", torA, 65000), route("203.0.113.0/24", torB, 65001)},
			"unfeasible: the best route to 203.0.113.53/32, 203.0.113.0/24, is of 198.18.1.1, and the rule of 198.18.0.1"},
		{"none", to32, eBGP, nil, "unfeasible: no unicast route covers 203.0.113.53/32"},
		{"a longer one does not cover", to24, eBGP, routes{route("203.0.113.0/25", torA, 65000)}, "unfeasible: no unicast route covers 203.0.113.0/24"},
		{"ours", to32, eBGP, routes{ours}, "unfeasible: the best route to 203.0.113.53/32, 203.0.113.0/24, is our own"},
		{"no destination", no, eBGP, routes{route("0.0.0.0/0", torA, 65000)}, "unfeasible: it has no destination prefix"},
		{"inside from the same AS", to24, eBGP, routes{route("203.0.113.0/24", torA, 65000), route("203.0.113.128/25", torB, 65000)}, ""},
		{"inside from another AS", to24, eBGP, routes{route("203.0.113.0/24", torA, 65000), route("203.0.113.128/25", torB, 65001)},
			"unfeasible: inside 203.0.113.0/24, 203.0.113.128/25 comes from AS 65001, and the best route from AS 65000"},
		{"inside, our own", to24, eBGP, routes{route("203.0.113.0/24", torA, 65000), {Prefix: netip.MustParsePrefix("203.0.113.9/32")}}, ""},
		{"another AS begins its path", to32, flowspec.Origin{Neighbor: torA, Originator: torA, External: true, FirstAS: 65009},
			routes{route("203.0.113.0/24", torA, 65000)},
			"unfeasible: its AS path begins with 65009, and that of the best route to 203.0.113.53/32 with 65000"},
		{"a route server's neighbors", to32, flowspec.Origin{Neighbor: torA, Originator: torA, External: true, FirstAS: 65009},
			routes{route("203.0.113.0/24", torA, 65009)}, ""},
		// RFC 9117 section 4.1, b.2
		{"from inside our AS", to32, flowspec.Origin{Neighbor: torB, Originator: torB}, routes{route("203.0.113.0/24", torA, 65000)}, ""},
		{"from inside our AS, with a path", to32, flowspec.Origin{Neighbor: torB, Originator: torB, FirstAS: 65000},
			routes{route("203.0.113.0/24", torA, 65000)},
			"unfeasible: the best route to 203.0.113.53/32, 203.0.113.0/24, is of 198.18.0.1, and the rule of 198.18.1.1"},
		{"an external one with an empty path", to32, flowspec.Origin{Neighbor: torB, Originator: torB, External: true},
			routes{route("203.0.113.0/24", torA, 65000)},
			"unfeasible: the best route to 203.0.113.53/32, 203.0.113.0/24, is of 198.18.0.1, and the rule of 198.18.1.1"},
		{"a reflected one", to32, flowspec.Origin{Neighbor: torB, Originator: torA, FirstAS: 65000}, routes{route("203.0.113.0/24", torA, 65000)}, ""},
	} {
		rule := parse(t, flowspec.IPv4, c.rule)
		got := ""
		if err := flowspec.Validate(rule, c.from, c.rib, nil); err != nil {
			got = err.Error()
			if !errors.Is(err, flowspec.ErrUnfeasible) {
				t.Errorf("%s: %v is not ErrUnfeasible", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if err := flowspec.Validate(rule, c.from, c.rib, flowspec.Trust{c.from.Neighbor}); err != nil {
			t.Errorf("%s, trusted: %v", c.name, err)
		}
	}
	offset := parse(t, flowspec.IPv6, "01 80 40 00 00 00 00 00 00 00 53")
	err := flowspec.Validate(offset, eBGP, routes{route("::/0", torA, 65000)}, flowspec.Trust{torB})
	if err == nil || err.Error() != "unfeasible: its destination prefix has an offset" {
		t.Errorf("offset: %v", err)
	}
}
