package bgp_test

import (
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/bgp/bfd"
	"sluice/tests/nstest"
)

// watched is gateway with BFD to the only ToR. Both ends wait for 5 s: neither a process nor the whole machine stands still for so long.
func watched() bgp.State {
	s := gateway(1)
	s.Learn = everything()
	s.BFD = []bfd.Config{{Peer: addr("198.18.0.1"), MinTx: 500 * time.Millisecond, MinRx: 500 * time.Millisecond, Multiplier: 10}}
	return s
}

// birdBFD is BIRD's side of it. Its BGP does not ask for BFD: what happens is our doing.
func birdBFD(multiplier int) string {
	return fmt.Sprintf("protocol bfd { interface \"gw\" { interval 100 ms; multiplier %d; }; neighbor 198.18.0.2 dev \"gw\"; }\n", multiplier)
}

// birdWithBFD starts BIRD as the only ToR. holdTime is long, so that nothing but BFD notices silence.
func (s *site) birdWithBFD(t *testing.T, multiplier int, static ...string) *nstest.Bird {
	t.Helper()
	config := torConfig(0, "198.18.0.1", "198.18.0.2", "", static...)
	return nstest.StartBird(t, s.tors[0], strings.Replace(config, "hold time 9;", "hold time 90;", 1)+birdBFD(multiplier))
}

// withBFD starts a speaker whose BFD process is found in dir. The process goes with the test.
func (s *site) withBFD(t *testing.T, role, dir string) *nstest.Child {
	t.Helper()
	t.Cleanup(func() {
		k, err := bfd.NewKeeper(slog.New(slog.DiscardHandler), dir, nil, func(string) {})
		if err == nil {
			_ = k.Down() // it complains of another network namespace, and sweeps nevertheless
		}
	})
	return s.gw.Child(t, role+"@"+dir)
}

// bfdIs waits for the BFD session with the only ToR.
func bfdIs(t *testing.T, gw *nstest.Child, want bfd.State) {
	t.Helper()
	nstest.Eventually(t, 30*time.Second, func() string {
		st := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)
		if len(st) != 1 || st[0].BFD == nil || st[0].BFD.State != want {
			return fmt.Sprintf("want %s: %+v", want, st)
		}
		return ""
	})
}

// silence drops what a ToR sends, all of it, until it is ended.
func (s *site) silence(t *testing.T) (end func()) {
	t.Helper()
	nft := func(rules string) {
		t.Helper()
		s.tors[0].Do(t, func() error {
			cmd := exec.Command("/usr/sbin/nft", "-f", "-")
			cmd.Stdin = strings.NewReader(rules)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return nil
		})
	}
	nft("add table inet silence\nadd chain inet silence out { type filter hook output priority 0; policy drop; }\n")
	return func() { nft("delete table inet silence\n") }
}

// Both sides do graceful restart here: without BFD the routes would stay for the hold time, and for the restart time behind it. What BIRD
// sends makes the detection time, and it has real-time priority; it waits for us longer, so that it is never the one that ends a session.
func TestASilentNeighborLosesItsRoutesAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.birdWithBFD(t, 3, "192.0.2.0/24").Urgent(t)
	gw := s.withBFD(t, fresh, t.TempDir())
	want := watched()
	want.Neighbors[0].HoldTime = 90 * time.Second
	want.BFD[0].MinTx, want.BFD[0].MinRx = 100*time.Millisecond, 100*time.Millisecond
	apply(t, gw, want)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bfdIs(t, gw, bfd.Up)
	end := s.silence(t)
	begin := time.Now()
	s.installs(t, "")
	t.Logf("the kernel's route is gone %v after the neighbor fell silent, BFD 100ms x 3", time.Since(begin).Round(time.Millisecond))
	await(t, gw, func(got string) string {
		for _, e := range []string{"bfd-down tor-a", "down tor-a"} { // GoBGP tells of the session's end whenever it gets to it
			if !slices.Contains(strings.Split(got, ", "), e) {
				return "events: " + got
			}
		}
		return ""
	})
	st := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)[0]
	if st.BFD.Diag != bfd.TimeExpired || st.BFD.Failures == 0 {
		t.Errorf("%+v", st.BFD)
	}
	end()
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
}

// RFC 5882 section 4.3.2: BIRD's BFD dies with its BGP, and says so by not setting C.
func TestANeighborThatRestartsKeepsItsRoutesThoughItsBFDFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.birdWithBFD(t, 10, "192.0.2.0/24")
	gw := s.withBFD(t, fresh, t.TempDir())
	apply(t, gw, watched())
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bfdIs(t, gw, bfd.Up)
	bird.Kill()
	failed(t, gw)
	for range 500 {
		if got, err := s.kernel(); err != nil || got != "192.0.2.0/24 198.18.0.1\n" {
			t.Fatalf("the kernel has %q (%v) while the neighbor restarts", got, err)
		}
	}
	s.birdWithBFD(t, 10, "192.0.2.0/24")
	bfdIs(t, gw, bfd.Up)
	established(t, gw, "tor-a")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
}

// RFC 5882 section 4.3.1: the neighbor's BFD has said by C that it outlives its BGP, so its end is the end of the path.
func TestARestartEndsWhereTheNeighborsIndependentBFDFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.tor(t, 0, "", "192.0.2.0/24")
	theirs := s.tors[0].Child(t, independent)
	nstest.Must[any](t, theirs, "set", []bfd.Config{
		{Peer: addr("198.18.0.2"), MinTx: 100 * time.Millisecond, MinRx: 100 * time.Millisecond, Multiplier: 10},
	})
	gw := s.withBFD(t, fresh, t.TempDir())
	apply(t, gw, watched())
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bfdIs(t, gw, bfd.Up)
	bird.Kill()
	nstest.Eventually(t, 10*time.Second, func() string {
		if got := sessions(t, gw); strings.Contains(got, "established") {
			return got
		}
		return ""
	})
	bfdIs(t, gw, bfd.Up)
	if got, err := s.kernel(); err != nil || got != "192.0.2.0/24 198.18.0.1\n" {
		t.Fatalf("the kernel has %q (%v) while the neighbor restarts", got, err)
	}
	theirs.Kill()
	s.installs(t, "")
	s.tor(t, 0, "", "192.0.2.0/24")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
}

// failed waits until the speaker has acted on the failure of its only BFD session.
func failed(t *testing.T, gw *nstest.Child) {
	t.Helper()
	nstest.Eventually(t, 20*time.Second, func() string {
		if got := events(t, gw); !strings.Contains(got, "bfd-down") {
			return "no event but " + got
		}
		return ""
	})
	nstest.Must[any](t, gw, "status", nil) // the event is told first, under a lock that this waits for
}

// The BFD sessions live on in their process; the speaker does graceful restart. Both ends of BFD have real-time priority here, so that
// the rest of a busy machine starves neither.
func TestARestartOfOursFlapsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := s.birdWithBFD(t, 10, "192.0.2.0/24")
	bird.Urgent(t)
	want := watched()
	want.Paths = []bgp.Path{path("203.0.113.0/24")}
	dir := t.TempDir()
	gw := s.withBFD(t, fresh, dir)
	apply(t, gw, want)
	hears(t, bird, "203.0.113.0/24")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bfdIs(t, gw, bfd.Up)
	before := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)[0].BFD
	w := s.watch(t, bird, "203.0.113.0/24", "192.0.2.0/24 198.18.0.1\n")
	gw.Kill()
	gw = s.withBFD(t, restarted, dir)
	apply(t, gw, want)
	established(t, gw, "tor-a")
	now := nstest.Must[[]bgp.NeighborStatus](t, gw, "status", nil)[0].BFD
	if now == nil || now.State != bfd.Up || now.Since != before.Since || now.Failures != 0 {
		t.Errorf("before %+v, after %+v", before, now)
	}
	w.end(t)
}

// A neighbor that switches BFD off, or never had it, keeps its BGP session.
func TestBFDThatIsNotOnTakesNothingAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.tor(t, 0, "", "192.0.2.0/24")
	gw := s.withBFD(t, fresh, t.TempDir())
	apply(t, gw, watched())
	established(t, gw, "tor-a")
	bfdIs(t, gw, bfd.Down)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	steps := apply(t, gw, func() bgp.State { w := watched(); w.BFD = nil; return w }())
	if strings.Join(steps, "\n") != "set bfd sessions: none" {
		t.Errorf("steps %q", steps)
	}
	said(t, gw, "up tor-a")
}
