package bgp_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

func TestALimitThatOnlyWarnsLeavesTheSessionUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26")
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	want.Learn = everything()
	want.Neighbors[0].Limit = bgp.PrefixLimit{Max: 2, Warn: true}
	apply(t, gw, want)
	nstest.Eventually(t, 15*time.Second, func() string { return nstest.Want("events", heldEvents(t, gw), "up tor-a, prefixes-limit tor-a") })
	s.installs(t, "192.0.2.0/26 198.18.0.1\n192.0.2.64/26 198.18.0.1\n192.0.2.128/26 198.18.0.1\n")

	// Another limit is judged anew, and what is near it is told once.
	want.Neighbors[0].Limit = bgp.PrefixLimit{Max: 4, WarnAt: 75}
	apply(t, gw, want)
	bird.Do(t, "disable static4")
	s.installs(t, "")
	bird.Do(t, "enable static4")
	nstest.Eventually(t, 15*time.Second, func() string {
		return nstest.Want("events", heldEvents(t, gw), "up tor-a, prefixes-limit tor-a, prefixes-warning tor-a")
	})
	if st := status(t, gw); st.State != "established" || st.Flaps != 0 {
		t.Errorf("status %+v", st)
	}
}

// heldEvents prints what came in the whole test.
func heldEvents(t *testing.T, c *nstest.Child) string {
	t.Helper()
	return nstest.Must[string](t, c, "all events", nil)
}

func TestASessionOverItsLimitLeavesNoRoutesAndComesBackByItself(t *testing.T) {
	for family, c := range map[string]struct{ format, hop string }{
		"IPv4": {"192.0.2.%d/26", "198.18.0.1"},
		"IPv6": {"2001:db8:1%d::/48", "2001:db8:1::1"}, // comes in MP_REACH_NLRI
	} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			prefixes, routes := []string{}, ""
			for _, i := range []int{0, 64, 128} {
				prefixes = append(prefixes, fmt.Sprintf(c.format, i))
			}
			for _, p := range prefixes[:2] {
				routes += p + " " + c.hop + "\n"
			}
			order := func(ours string) string { // IPv4 comes first
				if family == "IPv6" {
					return "198.51.100.0/24 198.18.1.1\n" + ours
				}
				return ours + "198.51.100.0/24 198.18.1.1\n"
			}
			s := newSite(t, 2)
			bird := s.tor(t, 0, "", prefixes[:2]...)
			s.tor(t, 1, "", "198.51.100.0/24")
			gw := s.gw.Child(t, fresh)
			want := gateway(2) // with graceful restart
			want.Learn = everything()
			want.Neighbors[0].Limit = bgp.PrefixLimit{Max: 2, RestartAfter: 2 * time.Second}
			apply(t, gw, want)
			established(t, gw, "tor-a", "tor-b")
			s.installs(t, order(routes))

			bird.Configure(t, torConfig(0, "198.18.0.1", "198.18.0.2", "", prefixes...))
			s.installs(t, order(""))
			nstest.Eventually(t, 15*time.Second, func() string {
				return nstest.Want("last notification at BIRD", lastError(t, bird), "Received: Maximum number of prefixes reached")
			})
			bird.Configure(t, torConfig(0, "198.18.0.1", "198.18.0.2", "", prefixes[0]))
			established(t, gw, "tor-a", "tor-b")
			s.installs(t, order(prefixes[0]+" "+c.hop+"\n"))
			nstest.Eventually(t, 10*time.Second, func() string { // status knows of the session a moment before the error is forgotten
				st := status(t, gw)
				return nstest.Want("why it is down", []string{st.Down, st.LastError}, []string{"", ""})
			})
		})
	}
}

func TestASessionThatIsStoppedByItsLimitStaysDownUntilItIsCleared(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/26", "192.0.2.64/26")
	gw := s.gw.Child(t, fresh)
	want := gateway(1)
	want.Learn = everything()
	want.Neighbors[0].Limit.Max = 1
	apply(t, gw, want)
	nstest.Eventually(t, 15*time.Second, func() string {
		st := status(t, gw)
		return nstest.Want("neighbor", fmt.Sprint(st.State, " ", st.Down, " ", st.LastError),
			"idle prefix-limit more than 1 prefix of one family: the session is shut down")
	})
	bird.Configure(t, torConfig(0, "198.18.0.1", "198.18.0.2", "", "192.0.2.0/26"))
	stays(t, gw, "tor-a", "idle")
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-a"})
	established(t, gw, "tor-a")
	nstest.Eventually(t, 15*time.Second, func() string {
		entries := nstest.Must[[]bgp.RIBEntry](t, gw, "table", [2]string{"tor-a", "accepted"})
		if len(entries) != 1 {
			return fmt.Sprintf("accepted %v", entries)
		}
		return nstest.Want("accepted", entries[0].Prefix, "192.0.2.0/26")
	})
}
