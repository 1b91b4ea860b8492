package bgp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

func number(n uint32) *uint32 { return &n }

// to is a path for some neighbors alone.
func to(p bgp.Path, neighbors ...string) bgp.Path {
	for _, n := range neighbors {
		p.To = append(p.To, addr(n))
	}
	return p
}

func TestOnePrefixIsAnnouncedToEachNeighborInItsOwnWay(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	a, b := s.tor(t, 0, ""), s.tor(t, 1, "")
	// The third is of our own AS.
	c := nstest.StartBird(t, s.tors[2], strings.Replace(torConfig(2, "198.18.2.1", "198.18.2.2", ""), "as 65002", "as 65010", 1))
	gw := s.gw.Child(t, fresh)
	const torA, torB, torC = "198.18.0.1", "198.18.1.1", "198.18.2.1"
	first := path("203.0.113.0/24", 65010<<16|1)
	first.LargeCommunities, first.MED, first.Prepend = []bgp.LargeCommunity{{65010, 1, 2}}, number(0), 2
	second := path("203.0.113.0/24", 0xffffff01) // no-export
	second.MED, second.NextHop = number(4294967295), addr("198.18.1.9")
	third := path("203.0.113.0/24")
	third.LocalPreference, third.Prepend = 200, 3
	want := gateway(3, to(first, torA), to(second, torB), to(third, torC), path("203.0.113.9/32"), to(path("203.0.113.10/32"), torB, torC))
	want.Neighbors[2].ASN = 65010
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b", "tor-c")
	hears(t, a, "203.0.113.0/24", "203.0.113.9/32")
	hears(t, b, "203.0.113.0/24", "203.0.113.9/32", "203.0.113.10/32")
	hears(t, c, "203.0.113.0/24", "203.0.113.9/32", "203.0.113.10/32")
	has(t, a, "203.0.113.0/24", "BGP.as_path: 65010 65010 65010", "BGP.community: (65010,1)", "BGP.large_community: (65010, 1, 2)", "BGP.med: 0", "BGP.next_hop: 198.18.0.2", "BGP.local_pref: 100")
	has(t, b, "203.0.113.0/24", "BGP.as_path: 65010", "BGP.community: (65535,65281)", "BGP.med: 4294967295", "BGP.next_hop: 198.18.1.9")
	has(t, c, "203.0.113.0/24", "BGP.as_path: ", "BGP.local_pref: 200", "BGP.next_hop: 198.18.2.2")
	has(t, c, "203.0.113.9/32", "BGP.local_pref: 100")
	lacks(t, a, "203.0.113.9/32", "BGP.med", "BGP.community", "BGP.large_community")
	counts := ""
	for _, n := range nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil) {
		counts += fmt.Sprint(n.Name, n.Families[0].Advertised, " ")
	}
	if counts != "tor-a2 tor-b3 tor-c3 " {
		t.Errorf("advertised: %s", counts)
	}

	// The neighbors change places, and one hears nothing more: by updates, in the same sessions.
	cameUp(t, gw, "tor-a", "tor-b", "tor-c")
	want.Paths = []bgp.Path{to(first, torB), to(second, torA), path("203.0.113.9/32", 65010<<16|7)}
	second.NextHop = netip.Addr{}
	want.Paths[1].NextHop = netip.Addr{}
	apply(t, gw, want)
	hears(t, c, "203.0.113.9/32")
	has(t, a, "203.0.113.0/24", "BGP.as_path: 65010", "BGP.community: (65535,65281)", "BGP.med: 4294967295", "BGP.next_hop: 198.18.0.2")
	has(t, b, "203.0.113.0/24", "BGP.as_path: 65010 65010 65010", "BGP.community: (65010,1)", "BGP.large_community: (65010, 1, 2)", "BGP.med: 0")
	hears(t, b, "203.0.113.0/24", "203.0.113.9/32")
	has(t, b, "203.0.113.9/32", "BGP.community: (65010,7)")
	lacks(t, a, "203.0.113.0/24", "BGP.large_community")
	if got := events(t, gw); got != "" {
		t.Errorf("a change of what is announced: %s", got)
	}
}

// lacks fails where BIRD shows one of the words for the prefix.
func lacks(t *testing.T, b *nstest.Bird, prefix string, words ...string) {
	t.Helper()
	got := b.Do(t, "show route all for %s", prefix)
	for _, word := range words {
		if strings.Contains(got, word) {
			t.Errorf("%s has %s:\n%s", prefix, word, got)
		}
	}
}

func TestFiltersFilterByEachCriterionFromBIRD(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	const tags = `filter tags {
  if net = 192.0.2.0/26 then bgp_path.prepend(64999);
  if net = 192.0.2.64/26 then bgp_community.add((65000,1));
  if net = 192.0.2.128/26 then { bgp_community.add((65000,1)); bgp_community.add((65000,2)); }
  if net = 192.0.2.192/26 then bgp_large_community.add((65000,1,1));
  accept;
}
`
	for i := range 2 {
		nstest.StartBird(t, s.tors[i], tags+strings.ReplaceAll(
			torConfig(i, fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i), "", tagged...), "export where source = RTS_STATIC", "export filter tags"))
	}
	s.filters(t)
}

// tagged is what both ToRs of filters announce: the first four with an AS, one community, two, and a large one.
var tagged = []string{"192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26", "192.0.2.192/26", "198.51.100.0/24", "2001:db8:200::/48"}

// filters has the gateway judge what its two ToRs announce, by each criterion.
func (s *site) filters(t *testing.T) {
	t.Helper()
	gw := s.gw.Child(t, fresh)
	a, b := []netip.Addr{addr("198.18.0.1")}, []netip.Addr{addr("198.18.1.1")}
	within := func(prefix string, ge, le int) bgp.PrefixMatch {
		return bgp.PrefixMatch{Prefix: netip.MustParsePrefix(prefix), GE: ge, LE: le}
	}
	const via = " 198.18.0.1\n"
	const both = " 198.18.0.1 198.18.1.1\n"
	want := gateway(2, path("203.0.113.0/24"))
	want.Learn = bgp.Learn{ECMP: 8, Metric: 20}
	apply(t, gw, want)
	cameUp(t, gw, "tor-a", "tor-b")
	for _, c := range []struct {
		name           string
		accept, reject []bgp.Filter
		accepted       uint64 // of tor-a's
		want           string
	}{
		{"nothing is accepted", nil, nil, 0, ""},
		{"lengths", []bgp.Filter{{PrefixMatch: within("0.0.0.0/0", 8, 24)}}, nil, 1, "198.51.100.0/24" + both},
		{"the other family", []bgp.Filter{{PrefixMatch: within("::/0", 0, 128)}}, nil, 1, "2001:db8:200::/48 2001:db8:1::1 2001:db8:2::1\n"},
		{"a neighbor", []bgp.Filter{{PrefixMatch: within("198.51.100.0/24", 24, 24), From: a}}, nil, 1, "198.51.100.0/24" + via},
		{"an AS path", []bgp.Filter{{ASPath: "_64999_"}}, nil, 1, "192.0.2.0/26" + both},
		{"an AS path that begins", []bgp.Filter{{ASPath: "^65000( |$)"}}, nil, 6,
			"192.0.2.0/26" + via + "192.0.2.64/26" + via + "192.0.2.128/26" + via + "192.0.2.192/26" + via + "198.51.100.0/24" + via + "2001:db8:200::/48 2001:db8:1::1\n"},
		{"a community", []bgp.Filter{{Communities: []uint32{65000<<16 | 1}}}, nil, 2, "192.0.2.64/26" + both + "192.0.2.128/26" + both},
		{"two communities", []bgp.Filter{{Communities: []uint32{65000<<16 | 1, 65000<<16 | 2}}}, nil, 1, "192.0.2.128/26" + both},
		{"a large community", []bgp.Filter{{LargeCommunities: []bgp.LargeCommunity{{65000, 1, 1}}}}, nil, 1, "192.0.2.192/26" + both},
		{"a rejection comes first", []bgp.Filter{{PrefixMatch: within("192.0.2.0/24", 24, 32)}}, []bgp.Filter{{Communities: []uint32{65000<<16 | 1}}, {ASPath: "_64999$", From: a}, {LargeCommunities: []bgp.LargeCommunity{{65000, 1, 1}}}}, 0,
			"192.0.2.0/26 198.18.1.1\n"},
		{"a preference", []bgp.Filter{{PrefixMatch: within("198.51.100.0/24", 24, 24), From: b, LocalPreference: 200}, {PrefixMatch: within("198.51.100.0/24", 24, 24)}}, nil, 1,
			"198.51.100.0/24 198.18.1.1\n"},
	} {
		want.Learn.Accept, want.Learn.Reject = c.accept, c.reject
		apply(t, gw, want)
		t.Run(c.name, func(t *testing.T) {
			s.installs(t, c.want)
			nstest.Eventually(t, 2*time.Minute, func() string { // a count rests for twenty times the time that it took
				accepted := uint64(0)
				for _, f := range status(t, gw).Families {
					accepted += f.Accepted
				}
				return nstest.Want("accepted", accepted, c.accepted)
			})
		})
	}
	want.Learn.Accept, want.Learn.Reject = []bgp.Filter{{}}, nil
	want.Learn.Table = 100
	apply(t, gw, want)
	nstest.Eventually(t, 10*time.Second, func() string {
		got, err := s.kernelTable(100)
		if err != nil {
			return err.Error()
		}
		return nstest.Want("routes in table 100", strings.Count(got, "\n"), len(tagged))
	})
	s.installs(t, "")
	if got := events(t, gw); got != "" {
		t.Errorf("filters that change: %s", got)
	}
}

func TestAPathThatIsGoingAwayIsTheLastChoice(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	leaving := strings.ReplaceAll(torConfig(0, "198.18.0.1", "198.18.0.2", "", "192.0.2.0/24", "198.51.100.0/24"),
		"export where source = RTS_STATIC", "export filter { if net = 192.0.2.0/24 then bgp_community.add((65535,0)); accept; }")
	nstest.StartBird(t, s.tors[0], leaving)
	other := s.tor(t, 1, "", "192.0.2.0/24", "198.51.100.0/24")
	gw := s.gw.Child(t, fresh)
	want := gateway(2)
	want.Learn = everything()
	want.Learn.Accept = []bgp.Filter{{From: []netip.Addr{addr("198.18.0.1")}, LocalPreference: 300}, {}}
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	s.installs(t, "192.0.2.0/24 198.18.1.1\n198.51.100.0/24 198.18.0.1\n")
	other.Do(t, "disable sluice")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.0.1\n") // better than none
}

// TestADrainShowsTheCommunityThenWithdrawsWhileTheSessionStays is what the compiler makes of a drain, and of its end.
func TestADrainShowsTheCommunityThenWithdrawsWhileTheSessionStays(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	bird := s.tor(t, 0, "")
	inside := nstest.StartBird(t, s.tors[1], strings.Replace(torConfig(1, "198.18.1.1", "198.18.1.2", ""), "as 65001", "as 65010", 1))
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24", 65010<<16|100), path("2001:db8:100::/48"))
	want.Neighbors[1].ASN = 65010
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	hears(t, bird, "203.0.113.0/24", "2001:db8:100::/48")
	cameUp(t, gw, "tor-a", "tor-b")
	leaving := want
	leaving.Paths = []bgp.Path{path("203.0.113.0/24", 65010<<16|100, bgp.GracefulShutdown), path("2001:db8:100::/48", bgp.GracefulShutdown)}
	for i := range leaving.Paths {
		leaving.Paths[i].LocalPreference = bgp.LeastPreference
	}
	apply(t, gw, leaving)
	has(t, bird, "203.0.113.0/24", "BGP.community: (65010,100) (65535,0)")
	has(t, bird, "2001:db8:100::/48", "BGP.community: (65535,0)", "BGP.next_hop: 2001:db8:1::2")
	has(t, inside, "203.0.113.0/24", "BGP.local_pref: 1", "BGP.community: (65010,100) (65535,0)")
	gone := want
	gone.Paths = nil
	apply(t, gw, gone)
	hears(t, bird)
	hears(t, inside)
	apply(t, gw, want)
	has(t, bird, "203.0.113.0/24", "BGP.community: (65010,100)")
	hears(t, inside, "203.0.113.0/24", "2001:db8:100::/48")
	if got := events(t, gw); got != "" {
		t.Errorf("the sessions: %s, want them to stay", got)
	}
}
