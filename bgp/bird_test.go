package bgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// has fails unless BIRD shows every line for the prefix.
func has(t *testing.T, b *nstest.Bird, prefix string, lines ...string) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() string {
		got := b.Do(t, "show route all for %s", prefix)
		for _, line := range lines {
			if !strings.Contains(got, line+"\n") {
				return fmt.Sprintf("%s lacks %q:\n%s", prefix, line, got)
			}
		}
		return ""
	})
}

// events prints what came since the last call.
func events(t *testing.T, c *nstest.Child) string {
	t.Helper()
	return strings.Join(nstest.Must[[]string](t, c, "events", nil), ", ")
}

// said waits until what came since the last call of either is want, in this order.
func said(t *testing.T, c *nstest.Child, want string) {
	t.Helper()
	await(t, c, func(got string) string { return nstest.Want("events", got, want) })
}

// cameUp waits until sessions have been told of as up: status knows a moment earlier.
func cameUp(t *testing.T, c *nstest.Child, neighbors ...string) {
	t.Helper()
	await(t, c, func(got string) string {
		for _, n := range neighbors {
			if !strings.Contains(got, "up "+n) {
				return "events: " + got + "; want " + n + " to come up"
			}
		}
		return ""
	})
}

func await(t *testing.T, c *nstest.Child, lacks func(got string) string) {
	t.Helper()
	got := ""
	nstest.Eventually(t, 15*time.Second, func() string {
		if more := events(t, c); got != "" && more != "" {
			got += ", " + more
		} else {
			got += more
		}
		return lacks(got)
	})
}

func TestPrefixesArriveWithTheirCommunitiesAndAreWithdrawn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "")
	gw := s.gw.Child(t, fresh)
	want := gateway(1, path("203.0.113.0/24", 65010<<16|100, 65010<<16|200), path("2001:db8:100::/48", 65010<<16|6))
	apply(t, gw, want)
	t.Logf("established after %v", established(t, gw, "tor-a").Round(10*time.Millisecond))
	hears(t, bird, "203.0.113.0/24", "2001:db8:100::/48")
	has(t, bird, "203.0.113.0/24", "BGP.next_hop: 198.18.0.2", "BGP.community: (65010,100) (65010,200)", "BGP.as_path: 65010")
	// IPv6 NLRI in a session over IPv4.
	has(t, bird, "2001:db8:100::/48", "BGP.next_hop: 2001:db8:1::2", "BGP.community: (65010,6)", "BGP.as_path: 65010")
	nstest.Eventually(t, 10*time.Second, func() string { // the error of a dial before is forgotten a moment later
		st := status(t, gw)
		return nstest.Want("families and last error", fmt.Sprint(st.Families, st.LastError), "[{ipv4-unicast 0 0 1 0} {ipv6-unicast 0 0 1 0}]")
	})

	want.Paths = []bgp.Path{path("203.0.113.0/24", 65010<<16|300)}
	begin := time.Now()
	apply(t, gw, want)
	hears(t, bird, "203.0.113.0/24")
	t.Logf("withdrawal seen after %v", time.Since(begin).Round(time.Millisecond))
	has(t, bird, "203.0.113.0/24", "BGP.community: (65010,300)")
	said(t, gw, "up tor-a") // once, and it stays
}

func TestASessionOverIPv6CarriesBothFamilies(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := nstest.StartBird(t, s.tors[0], torConfig(0, "2001:db8:1::1", "2001:db8:1::2", "", "192.0.2.0/24", "2001:db8:200::/48"))
	gw := s.gw.Child(t, fresh)
	want := gateway(1, path("203.0.113.0/24"), path("2001:db8:100::/48"))
	want.Neighbors[0].Address = addr("2001:db8:1::1")
	want.Neighbors[0].NextHop6 = netip.Addr{} // the session's own address is right
	want.Neighbors[0].NextHop4 = addr("198.18.0.2")
	want.Learn = everything()
	apply(t, gw, want)
	established(t, gw, "tor-a")
	hears(t, bird, "203.0.113.0/24", "2001:db8:100::/48")
	has(t, bird, "203.0.113.0/24", "BGP.next_hop: 198.18.0.2")
	has(t, bird, "2001:db8:100::/48", "BGP.next_hop: 2001:db8:1::2")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n2001:db8:200::/48 2001:db8:1::1\n")
}

func TestLearnedRoutesReachTheKernelAndNeverAnotherNeighbor(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	a := s.tor(t, 0, "", "192.0.2.0/24", "198.51.100.0/24", "10.20.1.0/24", "2001:db8:200::/48")
	b := s.tor(t, 1, "", "192.0.2.0/24")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24"))
	want.Learn = everything()
	want.Learn.Tunnels = []bgp.Tunnel{{Device: "fra1", Strict: []netip.Prefix{path("10.20.0.0/16").Prefix}}}
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	s.installs(t, "192.0.2.0/24 198.18.0.1 198.18.1.1\n198.51.100.0/24 198.18.0.1\n2001:db8:200::/48 2001:db8:1::1\n")
	hears(t, a, "203.0.113.0/24")
	hears(t, b, "203.0.113.0/24")

	a.Do(t, "disable static4")
	s.installs(t, "192.0.2.0/24 198.18.1.1\n2001:db8:200::/48 2001:db8:1::1\n")
	b.Do(t, "disable sluice")
	s.installs(t, "2001:db8:200::/48 2001:db8:1::1\n")
	a.Do(t, "enable static4")
	want.Learn.Accept = []bgp.Filter{{PrefixMatch: bgp.PrefixMatch{Prefix: path("192.0.2.0/24").Prefix, GE: 24, LE: 24}}}
	apply(t, gw, want)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	shows(t, gw, []bgp.RouteStatus{{Prefix: path("192.0.2.0/24").Prefix, NextHops: addrs("198.18.0.1"), Metric: 20}})
	hears(t, a, "203.0.113.0/24") // nothing of its own either
}

func TestAPasswordMustMatchAndComesOffAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	key := filepath.Join(t.TempDir(), "tor-a.key")
	write := func(password string) {
		if err := os.WriteFile(key, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bird := s.tor(t, 0, `password "tell nobody";`)
	gw := s.gw.Child(t, fresh)
	want := gateway(1, path("203.0.113.0/24"))
	want.Neighbors[0].PasswordFile = key
	write("something else")
	apply(t, gw, want)
	// Both sides have dialled several times by then.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got := sessions(t, gw); got == "tor-a established\n" {
			t.Fatal("established with the wrong password")
		}
	}
	if open(s, refusal) {
		t.Error("the listener answers the neighbor without a signature")
	}
	write("tell nobody")
	apply(t, gw, gateway(0))
	apply(t, gw, want)
	established(t, gw, "tor-a")
	for _, method := range []string{"observe", "status"} {
		if got := nstest.Must[any](t, gw, method, nil); strings.Contains(fmt.Sprint(got), "nobody") {
			t.Errorf("%s shows the password: %v", method, got)
		}
	}

	// What the file holds may change under a neighbor that stays what it is.
	theirs := func(password string) {
		bird.Configure(t, torConfig(0, "198.18.0.1", "198.18.0.2", fmt.Sprintf("password %q;", password)))
		write(password)
	}
	theirs("tell nobody either")
	if steps := strings.Join(apply(t, gw, want), ", "); steps != "reset neighbor tor-a (198.18.0.1 as 65000): new password" {
		t.Errorf("steps: %s", steps)
	}
	established(t, gw, "tor-a")
	if steps := apply(t, gw, want); len(steps) > 0 {
		t.Errorf("steps for the same password: %v", steps)
	}
	theirs("nor anybody else")
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-a"})
	established(t, gw, "tor-a")
	write("") // none that a session could have
	if steps := apply(t, gw, want); len(steps) > 0 {
		t.Errorf("steps for a file that cannot be used: %v", steps)
	}
	said(t, gw, "up tor-a, down tor-a, up tor-a, down tor-a, up tor-a")

	apply(t, gw, gateway(0))
	if !open(s, 5*time.Second) { // a lost SYN is sent again after a second
		t.Error("the password of a removed neighbor is still on the listener")
	}
}

// refusal is how long open waits where it is to be in vain.
const refusal = 800 * time.Millisecond

// open reports whether an unsigned TCP connection from the ToR to the gateway's BGP port is accepted in time.
func open(s *site, within time.Duration) (ok bool) {
	_ = s.tors[0].Try(func() error {
		conn, err := net.DialTimeout("tcp4", "198.18.0.2:179", within)
		if err == nil {
			ok = true
			return conn.Close()
		}
		return err
	})
	return ok
}

func TestAChangedNeighborLeavesTheOtherAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	a, b := s.tor(t, 0, ""), s.tor(t, 1, "")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24"))
	apply(t, gw, want)
	cameUp(t, gw, "tor-a", "tor-b")

	want.Neighbors[1].HoldTime = 12 * time.Second
	apply(t, gw, want)
	established(t, gw, "tor-a", "tor-b")
	said(t, gw, "down tor-b, up tor-b")
	hears(t, b, "203.0.113.0/24")

	want.Neighbors[0].Limit.Max, want.Neighbors[0].Name = 100, "tor-z"
	apply(t, gw, want)
	established(t, gw, "tor-b", "tor-z")
	want.Neighbors = want.Neighbors[:1]
	apply(t, gw, want)
	hears(t, b)
	said(t, gw, "down tor-b") // neither a limit nor a name costs the session
	hears(t, a, "203.0.113.0/24")
}

func TestTooManyPrefixesEndTheSessionUntilTheLimitIsRaised(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.tor(t, 0, "", "192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26")
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	want.Learn = everything()
	want.Neighbors[0].Limit.Max = 2
	apply(t, gw, want)
	nstest.Eventually(t, 15*time.Second, func() string {
		st := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)[0]
		return nstest.Want("neighbor", st.State+": "+st.LastError, "idle: more than 2 prefixes of one family: the session is shut down")
	})
	want.Neighbors[0].Limit.Max = 3
	apply(t, gw, want)
	established(t, gw, "tor-a")
	nstest.Eventually(t, 2*time.Minute, func() string { // a count rests for twenty times the time that it took
		st := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)[0]
		return nstest.Want("families", st.Families, "[{ipv4-unicast 3 3 0 0} {ipv6-unicast 0 0 0 0}]") + st.LastError
	})
}

func TestAPortInUseIsToldAndLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	var other net.Listener
	s.gw.Do(t, func() (err error) {
		other, err = net.Listen("tcp6", "[::]:179") // the second of GoBGP's two listeners
		return err
	})
	gw := s.gw.Child(t, fresh)
	_, err := nstest.Call[any](t, gw, "apply", gateway(1))
	if err == nil || !strings.Contains(err.Error(), "TCP port 179 is in use") {
		t.Errorf("error: %v", err)
	}
	if have := nstest.Must[bgp.State](t, gw, "observe", nil); have.RouterID.IsValid() {
		t.Errorf("still holds %+v", have)
	}
	if open(s, refusal) {
		t.Error("the IPv4 listener was left open")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	s.tor(t, 0, "")
	apply(t, gw, gateway(1))
	established(t, gw, "tor-a")
}

func TestAnotherPortThatIsInUseCostsNoSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.tor(t, 0, "")
	var other net.Listener
	s.gw.Do(t, func() (err error) {
		other, err = net.Listen("tcp6", "[::]:1790")
		return err
	})
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	apply(t, gw, want)
	established(t, gw, "tor-a")
	want.Port = 1790
	if _, err := nstest.Call[any](t, gw, "apply", want); err == nil || !strings.Contains(err.Error(), "TCP port 1790 is in use") {
		t.Errorf("error: %v", err)
	}
	said(t, gw, "up tor-a")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	apply(t, gw, want)
	established(t, gw, "tor-a")
}
