package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// frrHas waits until FRR shows every piece of text for the prefix.
func frrHas(t *testing.T, f *nstest.FRR, prefix string, pieces ...string) {
	t.Helper()
	nstest.Eventually(t, 15*time.Second, func() string {
		got := f.Do(t, "show bgp ipv4 unicast "+prefix)
		for _, piece := range pieces {
			if !strings.Contains(got, piece) {
				return fmt.Sprintf("FRR does not say %q:\n%s", piece, got)
			}
		}
		return ""
	})
}

// frrConfig is that of ToR i; the rest of its IPv4 family is the caller's.
func frrConfig(i int, asn uint32, ipv4 string) string {
	return strings.NewReplacer("ASN", fmt.Sprint(asn), "ROUTER", fmt.Sprintf("198.18.%d.1", i), "PEER", fmt.Sprintf("198.18.%d.2", i), "IPV4", ipv4).Replace(`router bgp ASN
 bgp router-id ROUTER
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor PEER remote-as 65010
 neighbor PEER timers 3 9
 neighbor PEER timers connect 1
 address-family ipv4 unicast
IPV4
 exit-address-family
`)
}

// TestFRRHearsAPrefixInTheWayMeantForIt: an attribute that FRR shows is one that FRR took from the wire.
func TestFRRHearsAPrefixInTheWayMeantForIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	outer := nstest.StartFRR(t, s.tors[0], frrConfig(0, 65000, ""), "bgpd")
	inner := nstest.StartFRR(t, s.tors[1], frrConfig(1, 65010, ""), "bgpd")
	gw := s.gw.Child(t, fresh)
	first := path("203.0.113.0/24", 65010<<16|1, 65010<<16|2)
	first.LargeCommunities, first.MED, first.Prepend = []bgp.LargeCommunity{{65010, 1, 2}}, number(7), 2
	second := path("203.0.113.0/24", 0xffffff01) // no-export
	second.LocalPreference, second.NextHop = 200, addr("198.18.1.9")
	want := gateway(2, to(first, "198.18.0.1"), to(second, "198.18.1.1"), to(path("203.0.113.9/32"), "198.18.0.1"))
	want.Neighbors[1].ASN = 65010
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	frrHas(t, outer, "203.0.113.0/24", "\n  65010 65010 65010\n", "198.18.0.2 from 198.18.0.2", "metric 7,", "Community: 65010:1 65010:2\n", "Large Community: 65010:1:2\n")
	frrHas(t, inner, "203.0.113.0/24", "\n  Local\n", "198.18.1.9", "localpref 200,", "Community: no-export\n")
	frrHas(t, outer, "203.0.113.9/32", "\n  65010\n")
	if got := inner.Do(t, "show bgp ipv4 unicast"); strings.Contains(got, "203.0.113.9/32") {
		t.Errorf("it hears what is for the other:\n%s", got)
	}

	cameUp(t, gw, "tor-a", "tor-b")
	want.Paths = []bgp.Path{path("203.0.113.0/24", 65010<<16|3)}
	apply(t, gw, want)
	frrHas(t, outer, "203.0.113.0/24", "\n  65010\n", "Community: 65010:3\n")
	frrHas(t, inner, "203.0.113.0/24", "198.18.1.2", "localpref 100,", "Community: 65010:3\n")
	frrHas(t, outer, "203.0.113.9/32", "Network not in table")
	if got := outer.Do(t, "show bgp ipv4 unicast 203.0.113.0/24"); strings.Contains(got, "Large Community") {
		t.Errorf("attributes of before stayed:\n%s", got)
	}
	if got := events(t, gw); got != "" {
		t.Errorf("a change of what is announced: %s", got)
	}
}

func TestFiltersFilterByEachCriterionFromFRR(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	tags, networks := "", ""
	for i, set := range []string{"set as-path prepend 64999", "set community 65000:1", "set community 65000:1 65000:2", "set large-community 65000:1:1"} {
		tags += fmt.Sprintf("ip prefix-list p%d permit %s\nroute-map tags permit %d\n match ip address prefix-list p%d\n %s\nexit\n", i, tagged[i], 10*(i+1), i, set)
	}
	tags += "route-map tags permit 100\nexit\n"
	for _, prefix := range tagged[:5] {
		networks += "  network " + prefix + "\n"
	}
	for i := range s.tors {
		peer := fmt.Sprintf("198.18.%d.2", i)
		nstest.StartFRR(t, s.tors[i], tags+frrConfig(i, 65000+uint32(i), networks+"  neighbor "+peer+" route-map tags out")+
			" address-family ipv6 unicast\n  network "+tagged[5]+"\n  neighbor "+peer+" activate\n exit-address-family\n", "bgpd")
	}
	s.filters(t)
}
