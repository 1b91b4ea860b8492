package bfd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp/bfd"
	"sluice/tests/nstest"
)

// peer is another implementation, on the other side of the link.
type peer interface {
	// intervals changes those of its sessions, live.
	intervals(t *testing.T, d time.Duration)
	// off and on switch its sessions administratively. off reports whether it tells us, or only falls silent.
	off(t *testing.T) (told bool)
	on(t *testing.T)
	// up reports whether it takes its session over the path for up.
	up(t *testing.T, path string) bool
}

var peers = map[string]func(t *testing.T, s *site) peer{
	"BIRD": func(t *testing.T, s *site) peer {
		return &birdPeer{nstest.StartBird(t, s.peers, birdConfig(base))}
	},
	"FRR": func(t *testing.T, s *site) peer {
		return &frrPeer{nstest.StartFRR(t, s.peers, frrConfig(fmt.Sprintf("detect-multiplier %d", multiplier), "transmit-interval 200", "receive-interval 200", "no shutdown"), "bfdd")}
	},
}

// multiplier is that of both sides: at base a process, or the whole machine, may stand still for 5 s.
const multiplier = 25

type birdPeer struct{ *nstest.Bird }

func birdConfig(interval time.Duration) string {
	neighbors := ""
	for _, p := range paths {
		neighbors += fmt.Sprintf("  neighbor %s dev %q;\n", p.ours, link)
	}
	return fmt.Sprintf("router id 198.18.0.1;\nprotocol bfd bfd1 {\n  interface %q { interval %d ms; idle tx interval 1 s; multiplier %d; };\n%s}\n",
		link, interval.Milliseconds(), multiplier, neighbors)
}

func (b *birdPeer) intervals(t *testing.T, d time.Duration) { b.Configure(t, birdConfig(d)) }
func (b *birdPeer) off(t *testing.T) (told bool)            { b.Do(t, "disable bfd1"); return false }
func (b *birdPeer) on(t *testing.T)                         { b.Do(t, "enable bfd1") }

func (b *birdPeer) up(t *testing.T, path string) bool {
	for _, line := range strings.Split(b.Do(t, "show bfd sessions"), "\n") { // address, interface, state, ...
		if f := strings.Fields(line); len(f) > 2 && f[0] == paths[path].ours {
			return f[2] == "Up"
		}
	}
	return false
}

type frrPeer struct{ *nstest.FRR }

func frrConfig(lines ...string) string {
	config := "bfd\n"
	for _, p := range paths {
		config += fmt.Sprintf(" peer %s local-address %s interface %s\n", p.ours, p.peers, link)
		for _, l := range lines {
			config += "  " + l + "\n"
		}
		config += " exit\n"
	}
	return config
}

func (f *frrPeer) intervals(t *testing.T, d time.Duration) {
	f.Load(t, frrConfig(fmt.Sprintf("transmit-interval %d", d.Milliseconds()), fmt.Sprintf("receive-interval %d", d.Milliseconds())))
}

func (f *frrPeer) off(t *testing.T) (told bool) { f.Load(t, frrConfig("shutdown")); return true }
func (f *frrPeer) on(t *testing.T)              { f.Load(t, frrConfig("no shutdown")) }

func (f *frrPeer) up(t *testing.T, path string) bool {
	var sessions []struct{ Peer, Status string }
	if err := json.Unmarshal([]byte(f.Do(t, "show bfd peers json")), &sessions); err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions {
		if s.Peer == paths[path].ours {
			return s.Status == "up"
		}
	}
	return false
}

// everyPeer runs a test against every implementation, with sessions over every path that have come up.
func everyPeer(t *testing.T, f func(t *testing.T, s *site, p peer, wanted func(time.Duration) []bfd.Config)) {
	wanted := func(d time.Duration) (out []bfd.Config) {
		for path := range paths {
			c := session(path, d)
			c.Multiplier = multiplier
			out = append(out, c)
		}
		return out
	}
	for name, start := range peers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			p := start(t, s)
			s.set(t, wanted(base)...)
			s.becomes(t, bfd.Up)
			bothUp(t, s, p)
			f(t, s, p, wanted)
		})
	}
}

func bothUp(t *testing.T, s *site, p peer) {
	t.Helper()
	s.becomes(t, bfd.Up)
	for path := range paths {
		nstest.Eventually(t, patience, func() string { return nstest.Want(path+" up at the peer", p.up(t, path), true) })
	}
}

// failures counts the downs of all sessions.
func (s *site) failures(t *testing.T) (n uint64) {
	t.Helper()
	for _, st := range s.status(t) {
		n += st.Failures
	}
	return n
}

func TestASilentPeerIsSeenAndComesBack(t *testing.T) {
	everyPeer(t, func(t *testing.T, s *site, p peer, _ func(time.Duration) []bfd.Config) {
		before := s.failures(t)
		end := s.silence(t)
		took := s.becomes(t, bfd.Down)
		for _, st := range s.status(t) {
			t.Logf("%s: down %v after the link went silent (200 ms x 25): %s", st.Peer, took.Round(time.Millisecond), st.Diag)
			if st.Diag != bfd.TimeExpired {
				t.Errorf("%s: down for %q", st.Peer, st.Diag)
			}
		}
		if n := s.failures(t) - before; n != uint64(len(paths)) {
			t.Errorf("%d failures are counted", n)
		}
		for path := range paths {
			nstest.Eventually(t, patience, func() string { return nstest.Want(path+" up at the peer", p.up(t, path), false) })
		}
		end()
		bothUp(t, s, p)
	})
}

func TestIntervalsChangeWithoutAFlap(t *testing.T) {
	everyPeer(t, func(t *testing.T, s *site, p peer, wanted func(time.Duration) []bfd.Config) {
		agreed := func(tx, detection time.Duration) {
			t.Helper()
			nstest.Eventually(t, patience, func() string {
				for _, st := range s.status(t) {
					if st.Interval != tx || st.Detection != detection || st.State != bfd.Up {
						return fmt.Sprintf("%s is %s, sends every %v and waits for %v, want %v and %v", st.Peer, st.State, st.Interval, st.Detection, tx, detection)
					}
				}
				return ""
			})
		}
		agreed(base, multiplier*base)
		before := s.failures(t)
		s.set(t, wanted(400*time.Millisecond)...)
		agreed(400*time.Millisecond, multiplier*400*time.Millisecond)
		p.intervals(t, 500*time.Millisecond)
		agreed(500*time.Millisecond, multiplier*500*time.Millisecond)
		s.set(t, wanted(250*time.Millisecond)...)
		p.intervals(t, 300*time.Millisecond)
		agreed(300*time.Millisecond, multiplier*300*time.Millisecond)
		bothUp(t, s, p)
		if n := s.failures(t) - before; n > 0 {
			t.Errorf("%d flaps", n)
		}
	})
}

func TestASessionThatIsSwitchedOffHasNotFailed(t *testing.T) {
	everyPeer(t, func(t *testing.T, s *site, p peer, wanted func(time.Duration) []bfd.Config) {
		before := s.failures(t)
		told := p.off(t)
		s.becomes(t, bfd.Down)
		if n := s.failures(t) - before; (n == 0) != told {
			t.Errorf("%d failures are counted for a peer that was switched off, and told us: %v", n, told)
		}
		p.on(t)
		bothUp(t, s, p)
		s.set(t)
		s.becomes(t, bfd.AdminDown)
		for path := range paths {
			nstest.Eventually(t, patience, func() string { return nstest.Want(path+" up at the peer", p.up(t, path), false) })
		}
		s.set(t, wanted(base)...) // while it is still being taken leave of
		bothUp(t, s, p)
		s.set(t)
		// Leave is taken for the multiplier times a second, the interval of a session that is not up.
		nstest.Eventually(t, multiplier*time.Second+patience, func() string { return nstest.Want("sessions", len(s.status(t)), 0) })
		s.set(t, wanted(base)...)
		bothUp(t, s, p)
	})
}
