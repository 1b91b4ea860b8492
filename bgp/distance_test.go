package bgp_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// far adds a namespace behind ToR 0, two hops from the gateway: 198.18.9.9.
func (s *site) far(t *testing.T) *nstest.NS {
	t.Helper()
	far := nstest.New(t)
	nstest.Veth(t, s.tors[0], "far", far, "mid")
	s.tors[0].Address(t, "far", "198.18.9.1/24")
	far.Address(t, "mid", "198.18.9.9/24")
	s.tors[0].Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	for _, route := range []struct {
		in      *nstest.NS
		to, via string
	}{{s.gw, "198.18.9.0/24", "198.18.0.1"}, {far, "198.18.0.0/24", "198.18.9.1"}} {
		_, to, err := net.ParseCIDR(route.to)
		if err == nil {
			err = route.in.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(route.via)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return far
}

func TestANeighborTwoHopsAway(t *testing.T) {
	for _, c := range []struct {
		name, extra string
		change      func(*bgp.Neighbor)
		up          bool
	}{
		{"is out of reach of an eBGP session", "multihop 2;", func(*bgp.Neighbor) {}, false},
		{"is reached with multihop", "multihop 2;", func(n *bgp.Neighbor) { n.Multihop = 2 }, true},
		{"is refused by TTL security of one hop", "multihop 2; ttl security on;", func(n *bgp.Neighbor) { n.TTLSecurity = 1 }, false},
		{"is refused by TTL security of one hop, though it dials", "multihop 2; ttl security on;",
			func(n *bgp.Neighbor) { n.TTLSecurity, n.Passive = 1, true }, false},
		{"passes TTL security of two hops", "multihop 2; ttl security on;", func(n *bgp.Neighbor) { n.TTLSecurity = 2 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1)
			config := torConfig(0, "198.18.9.9", "198.18.0.2", c.extra)
			nstest.StartBird(t, s.far(t), config)
			gw := s.gw.Child(t, fresh)
			want := gateway(1)
			n := &want.Neighbors[0]
			n.Address = addr("198.18.9.9")
			c.change(n)
			apply(t, gw, want)
			if c.up {
				established(t, gw, "tor-a")
			} else {
				stays(t, gw, "tor-a", "active")
			}
		})
	}
}

func TestTTLSecurityOnTheLink(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.tor(t, 0, "ttl security on;")
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	want.Neighbors[0].TTLSecurity = 1
	apply(t, gw, want)
	established(t, gw, "tor-a")
}

// internal makes a ToR's configuration one of our own AS.
func internal(config string, tor int) string {
	return strings.Replace(config, fmt.Sprintf("as %d;", 65000+tor), "as 65010;", 1)
}

func TestIBGPSaysWhatIsOursAndReflectsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	start := func(i int, static ...string) *nstest.Bird {
		config := torConfig(i, fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i), "", static...)
		if i < 2 {
			config = internal(config, i)
		}
		return nstest.StartBird(t, s.tors[i], config)
	}
	a, b, outside := start(0, "192.0.2.0/24"), start(1, "198.51.100.0/24"), start(2)
	gw := s.gw.Child(t, fresh)
	want := gateway(3, path("203.0.113.0/24", 65010<<16|100), path("2001:db8:100::/48"))
	want.Neighbors[0].ASN, want.Neighbors[1].ASN = 65010, 65010
	want.Learn = everything()
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b", "tor-c")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.1.1\n")
	for _, bird := range []*nstest.Bird{a, b, outside} {
		hears(t, bird, "203.0.113.0/24", "2001:db8:100::/48")
	}
	has(t, a, "203.0.113.0/24", "BGP.as_path: ", "BGP.next_hop: 198.18.0.2", "BGP.local_pref: 100", "BGP.community: (65010,100)")
	has(t, a, "2001:db8:100::/48", "BGP.next_hop: 2001:db8:1::2", "BGP.local_pref: 100")
	has(t, outside, "203.0.113.0/24", "BGP.as_path: 65010")
	if st := status(t, gw); !st.Internal {
		t.Errorf("status %+v", st)
	}
	for table, want := range map[bgp.Table]string{
		bgp.Received: "[{192.0.2.0/24 198.18.0.1 198.18.0.1 [] [] 100}]", bgp.Accepted: "[{192.0.2.0/24 198.18.0.1 198.18.0.1 [] [] 100}]",
		bgp.Advertised: "[{203.0.113.0/24 198.18.0.2 198.18.0.1 [] [4260495460] 100} {2001:db8:100::/48 2001:db8:1::2 198.18.0.1 [] [] 100}]",
	} {
		var got []string
		for _, e := range nstest.Must[[]bgp.RIBEntry](t, gw, "table", [2]string{"tor-a", string(table)}) {
			pref := uint32(0)
			if e.LocalPref != nil {
				pref = *e.LocalPref
			}
			got = append(got, fmt.Sprint("{", e.Prefix, " ", e.NextHop, " ", e.Neighbor, " ", e.ASPath, " ", e.Communities, " ", pref, "}"))
		}
		if d := nstest.Want(string(table), got, want); d != "" {
			t.Error(d)
		}
	}
}

func TestASilentNeighborIsGivenUpAfterTheHoldTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/24")
	gw := s.gw.Child(t, fresh)
	want := gateway(1, path("203.0.113.0/24"))
	want.Learn = everything()
	n := &want.Neighbors[0]
	n.RestartTime = 0
	apply(t, gw, want)
	established(t, gw, "tor-a")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	begin := time.Now()
	bird.Freeze(t)
	s.installs(t, "")
	t.Logf("its route is gone %v after it fell silent, with a hold time of %v", time.Since(begin).Round(10*time.Millisecond), n.HoldTime)
	nstest.Eventually(t, 10*time.Second, func() string { // routes go first
		st := status(t, gw)
		return nstest.Want("last error and flaps", []any{st.LastError, st.Flaps}, []any{"sent Hold Timer Expired", 1})
	})
}

func TestAPasswordOverIPv6(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("tell nobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	nstest.StartBird(t, s.tors[0], torConfig(0, "2001:db8:1::1", "2001:db8:1::2", `password "tell nobody";`))
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	n := &want.Neighbors[0]
	n.Address, n.NextHop4 = addr("2001:db8:1::1"), addr("198.18.0.2")
	apply(t, gw, want)
	stays(t, gw, "tor-a", "active") // without one
	n.PasswordFile = key
	apply(t, gw, want)
	established(t, gw, "tor-a")
}

func TestFRRIsTheOtherEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("tellnobody"), 0o600); err != nil {
		t.Fatal(err)
	}
	frr := nstest.StartFRR(t, s.tors[0], `router bgp 65000
 bgp router-id 198.18.0.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 198.18.0.2 remote-as 65010
 neighbor 198.18.0.2 password tellnobody
 neighbor 198.18.0.2 ttl-security hops 1
 neighbor 198.18.0.2 timers 3 9
 neighbor 198.18.0.2 timers connect 1
 address-family ipv4 unicast
  network 192.0.2.0/24
  network 198.51.100.0/24
 exit-address-family
`, "bgpd")
	inner := nstest.StartFRR(t, s.tors[1], `router bgp 65010
 bgp router-id 198.18.1.1
 no bgp network import-check
 neighbor 198.18.1.2 remote-as 65010
 neighbor 198.18.1.2 passive
 neighbor 198.18.1.2 timers 3 9
`, "bgpd")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24"))
	want.Learn = everything()
	want.Neighbors[0].PasswordFile, want.Neighbors[0].TTLSecurity = key, 1
	want.Neighbors[1].ASN = 65010
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.0.1\n")
	frrHas(t, frr, "203.0.113.0/24", "198.18.0.2 from 198.18.0.2", "65010")
	frrHas(t, inner, "203.0.113.0/24", "198.18.1.2 from 198.18.1.2", "localpref 100", "internal")
	if got := inner.Do(t, "show bgp ipv4 unicast"); strings.Contains(got, "192.0.2.0/24") {
		t.Errorf("what the one neighbor announced was reflected to the other:\n%s", got)
	}

	want.Neighbors[0].Shutdown, want.Neighbors[0].Reason = true, "fibre works"
	apply(t, gw, want)
	nstest.Eventually(t, 10*time.Second, func() string {
		got := frr.Do(t, "show bgp neighbors 198.18.0.2")
		if !strings.Contains(got, "Notification received (Cease/Administrative Shutdown)") {
			return got
		}
		return ""
	})
	frr.Do(t, "configure terminal", "router bgp 65000", "neighbor 198.18.0.2 shutdown message new line card")
	want.Neighbors[0].Shutdown = false
	apply(t, gw, want)
	stays(t, gw, "tor-a", "active")
	frr.Do(t, "configure terminal", "router bgp 65000", "no neighbor 198.18.0.2 shutdown")
	established(t, gw, "tor-a", "tor-b")
}
