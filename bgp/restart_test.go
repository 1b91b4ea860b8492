package bgp_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// watcher asks BIRD and the gateway's kernel over and over whether their lists of routes begin as they should. No
// answer counts as no routes.
type watcher struct {
	stop                func() // and wait
	polls, bird, kernel int    // how often asked, and how often each was found wanting
}

func (s *site) watch(t *testing.T, b *nstest.Bird, heardWant, kernelWant string) *watcher {
	w := &watcher{}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
			}
			w.polls++
			if got, err := heard(b); err != nil || !strings.HasPrefix(got, heardWant) {
				w.bird++
			}
			if got, err := s.kernel(); err != nil || !strings.HasPrefix(got, kernelWant) {
				w.kernel++
			}
		}
	}()
	w.stop = sync.OnceFunc(func() { close(end); <-done })
	t.Cleanup(w.stop)
	return w
}

func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.stop()
	t.Logf("%d polls, %d without the routes in BIRD, %d without the learned route in the kernel", w.polls, w.bird, w.kernel)
	if w.bird+w.kernel > 0 || w.polls < 20 {
		t.Errorf("the routes were not there all the time")
	}
}

func TestARestartKeepsTheRoutesOnBothSides(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *nstest.Child){
		"kill -9":   func(_ *testing.T, c *nstest.Child) { c.Kill() },
		"hand-over": func(t *testing.T, c *nstest.Child) { nstest.Must[any](t, c, "stop", nil); c.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1)
			bird := s.tor(t, 0, "", "192.0.2.0/24", "2001:db8:200::/48")
			want := gateway(1, path("203.0.113.0/24"), path("203.0.113.9/32"), path("2001:db8:100::/48"))
			want.Learn = everything()
			gw := s.gw.Child(t, fresh)
			apply(t, gw, want)
			established(t, gw, "tor-a")
			hears(t, bird, "203.0.113.0/24", "203.0.113.9/32", "2001:db8:100::/48")
			s.installs(t, "192.0.2.0/24 198.18.0.1\n2001:db8:200::/48 2001:db8:1::1\n")

			w := s.watch(t, bird, set("203.0.113.0/24", "203.0.113.9/32", "2001:db8:100::/48"), "192.0.2.0/24 198.18.0.1\n")
			end(t, gw)
			nstest.Eventually(t, 20*time.Second, func() string { // of a restart time of 30 s
				if got := bird.Do(t, "show protocols all sluice"); !strings.Contains(got, "Neighbor graceful restart active") {
					return got
				}
				return ""
			})
			bird.Do(t, "disable static6") // gone while nobody could hear it
			again := s.gw.Child(t, restarted)
			apply(t, again, want)
			t.Logf("established again after %v", established(t, again, "tor-a").Round(10*time.Millisecond))
			s.installs(t, "192.0.2.0/24 198.18.0.1\n") // swept after End-of-RIB
			if got := bird.Do(t, "show protocols all sluice"); !strings.Contains(got, "AF preserved: ipv4 ipv6\n") {
				t.Errorf("the first OPEN after the restart lacks the forwarding bits:\n%s", got)
			}
			nstest.Eventually(t, 15*time.Second, func() string {
				if got := bird.Do(t, "show protocols all sluice"); strings.Contains(got, "graceful restart active") {
					return got
				}
				return ""
			})
			w.end(t)
		})
	}
}

func TestADeadNeighborDoesNotHoldUpARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	a := s.tor(t, 0, "", "192.0.2.0/24")
	gw := s.gw.Child(t, fresh)
	want := gateway(2, path("203.0.113.0/24")) // nobody answers as tor-b
	want.Learn = everything()
	apply(t, gw, want)
	hears(t, a, "203.0.113.0/24")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	w := s.watch(t, a, "203.0.113.0/24", "192.0.2.0/24 198.18.0.1\n")
	gw.Kill()
	want.Paths = append(want.Paths, path("203.0.113.9/32"))
	again := s.gw.Child(t, restarted)
	apply(t, again, want)
	hears(t, a, "203.0.113.0/24", "203.0.113.9/32")
	w.end(t)
}

func TestARouteThatIsNotAnnouncedAgainAfterARestartGoes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "")
	gw := s.gw.Child(t, fresh)
	apply(t, gw, gateway(1, path("203.0.113.0/24"), path("203.0.113.9/32")))
	hears(t, bird, "203.0.113.0/24", "203.0.113.9/32")
	gw.Kill()
	again := s.gw.Child(t, restarted)
	apply(t, again, gateway(1, path("203.0.113.0/24")))
	hears(t, bird, "203.0.113.0/24")
}

// GoBGP withdraws all that was learned when it stops. Nobody hears that any more: the kernel's routes are there all the time, and the next speaker's.
func TestAnotherIdentityLeavesTheKernelItsRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/24", "198.51.100.0/24")
	want := gateway(1, path("203.0.113.0/24"))
	want.Learn = everything()
	gw := s.gw.Child(t, fresh)
	apply(t, gw, want)
	hears(t, bird, "203.0.113.0/24")
	const both = "192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.0.1\n"
	s.installs(t, both)
	w := s.watch(t, bird, "", both)
	want.RouterID = addr("198.18.0.22")
	if steps := apply(t, gw, want); !strings.HasPrefix(steps[0], "start bgp speaker as 65010 id 198.18.0.22") {
		t.Errorf("steps %q", steps)
	}
	established(t, gw, "tor-a")
	hears(t, bird, "203.0.113.0/24")
	nstest.Eventually(t, 15*time.Second, func() string {
		stale := 0
		for _, r := range nstest.Must[[]bgp.RouteStatus](t, gw, "routes", nil) {
			if r.Stale {
				stale++
			}
		}
		return nstest.Want("routes that are not learned again", stale, 0)
	})
	w.end(t)
}

func TestDownTakesTheRoutesAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/24")
	want := gateway(1, path("203.0.113.0/24"))
	want.Learn = everything()
	gw := s.gw.Child(t, fresh)
	apply(t, gw, want)
	hears(t, bird, "203.0.113.0/24")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	nstest.Must[any](t, gw, "down", nil)
	s.installs(t, "")
	begin := time.Now()
	hears(t, bird)
	t.Logf("gone %v after Down returned", time.Since(begin).Round(time.Millisecond))
	said(t, gw, "up tor-a, down tor-a")

	// A later process without BGP clears what a crash left.
	apply(t, gw, want)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	gw.Kill()
	nstest.Must[any](t, s.gw.Child(t, fresh), "down", nil)
	s.installs(t, "")
}
