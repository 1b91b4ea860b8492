package bgp_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tests/nstest"
)

// carrier takes the carrier of the gateway's link to ToR i away, or gives it back, from the other end of the cable.
func (s *site) carrier(t *testing.T, i int, on bool) {
	t.Helper()
	link, err := s.tors[i].LinkByName("gw")
	if err == nil && on {
		err = s.tors[i].LinkSetUp(link)
	} else if err == nil {
		err = s.tors[i].LinkSetDown(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tells has the time when the kernel first tells that a link of the gateway is without carrier.
func (s *site) tells(t *testing.T, link string) <-chan time.Time {
	t.Helper()
	updates, done, told := make(chan netlink.LinkUpdate), make(chan struct{}), make(chan time.Time, 1)
	t.Cleanup(func() { close(done) })
	if err := netlink.LinkSubscribeAt(s.gw.FD(), updates, done); err != nil {
		t.Fatal(err)
	}
	go func() {
		for u := range updates {
			if u.Attrs().Name == link && u.IfInfomsg.Flags&unix.IFF_LOWER_UP == 0 {
				select {
				case told <- time.Now():
				default:
				}
			}
		}
	}()
	return told
}

// until looks without a pause until the kernel has these routes.
func (s *site) until(t *testing.T, want string) {
	t.Helper()
	for begin := time.Now(); ; {
		got, err := s.kernel()
		switch {
		case err != nil:
			t.Fatal(err)
		case got == want:
			return
		case time.Since(begin) > 15*time.Second:
			t.Fatalf("the kernel has\n%s, want\n%s", got, want)
		}
	}
}

func TestALostLinkTakesItsRoutesAndItsSessionAtOnce(t *testing.T) {
	s := newSite(t, 2)
	for i := range 2 {
		s.tors[i].Do(t, func() error { // its end of the cable is what is pulled
			return os.WriteFile("/proc/sys/net/ipv6/conf/gw/keep_addr_on_down", []byte("1"), 0o600)
		})
		config := torConfig(i, fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i), "", "0.0.0.0/0", "192.0.2.0/24", "2001:db8:100::/48")
		if i == 1 { // a session over hops outlives its link at BIRD, too, which then takes no IPv6 next hop from that
			config = strings.Replace(config, "hold time 9;", "hold time 9; multihop 2;", 1)
			config = strings.Replace(config, "ipv6 { import", "ipv6 { next hop address 2001:db8:2::1; import", 1)
		}
		nstest.StartBird(t, s.tors[i], config)
	}
	gw := s.gw.Child(t, fresh)
	state := gateway(2)
	state.Learn, state.Neighbors[0].FallOver = everything(), true
	apply(t, gw, state)
	established(t, gw, "tor-a", "tor-b")
	both := "0.0.0.0/0 198.18.0.1 198.18.1.1\n192.0.2.0/24 198.18.0.1 198.18.1.1\n2001:db8:100::/48 2001:db8:1::1 2001:db8:2::1\n"
	s.installs(t, both)

	told := s.tells(t, "up0")
	begin := time.Now()
	s.carrier(t, 0, false)
	s.until(t, "0.0.0.0/0 198.18.1.1\n192.0.2.0/24 198.18.1.1\n2001:db8:100::/48 2001:db8:2::1\n")
	took, event := time.Since(begin), (<-told).Sub(begin)
	t.Logf("the kernel's routes changed %v after the cable was pulled, %v after the kernel told of it", took, took-event)
	nstest.Eventually(t, 8*time.Second, func() string { // the hold time would be 9 s, and graceful restart 30 s more
		st := status(t, gw)
		return nstest.Want("session", []any{st.State == "established", st.LastError}, []any{false, `sent Cease: Administrative Reset ("link down")`})
	})
	s.carrier(t, 0, true)
	s.installs(t, both)
	established(t, gw, "tor-a", "tor-b")
	if st := status(t, gw); st.Flaps != 1 {
		t.Errorf("%d sessions were ended for one lost link", st.Flaps)
	}

	// tor-b's session may outlive its link, but its routes do not.
	var before string
	nstest.Eventually(t, 15*time.Second, func() string { // status knows of a session a moment before it is told
		before = nstest.Must[string](t, gw, "all events", nil)
		if strings.Count(before, "up tor-a") != 2 || !strings.HasSuffix(before, "up tor-a") {
			return "events: " + before
		}
		return ""
	})
	s.carrier(t, 1, false)
	s.installs(t, "0.0.0.0/0 198.18.0.1\n192.0.2.0/24 198.18.0.1\n2001:db8:100::/48 2001:db8:1::1\n")
	s.carrier(t, 1, true)
	s.installs(t, both)
	if now := nstest.Must[string](t, gw, "all events", nil); now != before || strings.Contains(now, "down tor-b") {
		t.Errorf("events were %s, are %s", before, now)
	}
}

func TestRoutesThatAnotherProgramTakesComeBackAndAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.tor(t, 0, "", "192.0.2.0/24", "198.51.100.0/24")
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	want.Learn = everything()
	apply(t, gw, want)
	const both = "192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.0.1\n"
	s.installs(t, both)
	said(t, gw, "up tor-a")
	s.gw.Do(t, func() error {
		out, err := exec.Command("/usr/sbin/ip", "nexthop", "flush").CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip nexthop flush: %w: %s", err, out)
		}
		return nil
	})
	await(t, gw, func(got string) string { // a flush takes one object after the other
		if !strings.Contains(got, "routes-taken ") {
			return "events: " + got
		}
		return ""
	})
	s.installs(t, both)
}
