package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/config"
)

// probes has the probes of peer a answered (o) or not (x), one a second, and returns what it is after each: U or D.
func (w *world) probes(outcomes string) string {
	w.t.Helper()
	var out strings.Builder
	for _, o := range outcomes {
		w.echoes[inside] = o == 'o'
		w.run(time.Second)
		if w.m.probes[1].probe.down {
			out.WriteByte('D')
		} else {
			out.WriteByte('U')
		}
	}
	return out.String()
}

// A loss is known when the next probe is due: one second later.
func TestProbesTakeAPeerDownAndBringItBack(t *testing.T) {
	for _, c := range []struct{ name, outcomes, want string }{
		{"two lost in a row are borne", "oooxxooxxo", "UUUUUUUUUU"},
		{"three are not", "oooxxxx", "UUUUUUD"},
		{"five in a row bring it back", "oooxxxxoooooo", "UUUUUUDDDDDUU"},
		{"four do not, and a loss begins anew", "oooxxxxooooxooooooo", "UUUUUUDDDDDDDDDDUUU"},
		{"one that never answered is given time", strings.Repeat("x", 18), strings.Repeat("U", 15) + "DDD"},
		{"and is up when it answers", "xxxxxoooo", "UUUUUUUUU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, probed(e1))
			if got := w.probes(c.outcomes); got != c.want {
				t.Errorf("outcomes %s\n     got %s\n    want %s", c.outcomes, got, c.want)
			}
			w.down(strings.HasSuffix(c.want, "D"))
			turns := 0
			for i := 1; i < len(c.want); i++ {
				if c.want[i] != c.want[i-1] {
					turns++
				}
			}
			w.changed(turns)
		})
	}
}

func TestWhoIsDownIsToldAndStaysSoOverARestart(t *testing.T) {
	w := newWorld(t, probed(e1))
	w.probes("ooxxxx")
	w.down(true)
	if !slices.Equal(w.events, []Event{{PeerUp, "fra1", "a", "peer a is up: the first probe of 10.20.0.1 was answered"},
		{PeerDown, "fra1", "a", "peer a is down: 3 probes of 10.20.0.1 in a row were lost"}}) {
		t.Errorf("told %+v", w.events)
	}
	if p := w.m.problems(); len(p) != 1 || p[0].Text != "probes of 10.20.0.1 are not answered: its routes are withdrawn" {
		t.Errorf("problems %+v", p)
	}
	w.changes = nil
	w.restart()
	w.down(true)
	w.run(time.Minute)
	w.down(true)
	w.changed(0)
	w.echoes[inside] = true
	w.run(6 * time.Second)
	w.down(false)
	w.changed(1)
	w.restart() // it was up, and is known to answer: three losses are enough
	w.echoes[inside] = false
	w.run(5 * time.Second)
	w.down(true)
}

func TestAnotherProbeIsAnotherQuestion(t *testing.T) {
	tunnel := probed(e1)
	w := newWorld(t, tunnel)
	w.probes("ooxxxx")
	tunnel.Peers = slices.Clone(tunnel.Peers)
	tunnel.Peers[0].Probe = netip.MustParseAddr("10.20.0.2")
	w.apply(tunnel)
	w.down(false)
	tunnel.Health = nil
	w.apply(tunnel)
	w.down(false)
	w.pings = nil
	w.run(10 * time.Second)
	if len(w.pings) > 0 {
		t.Errorf("%d probes without health", len(w.pings))
	}
}

func TestOtherNumbersOfHealthHoldAtOnce(t *testing.T) {
	tunnel := probed(e1)
	w := newWorld(t, tunnel)
	w.probes("oo")
	health := *tunnel.Health
	health.DownAfter = 6
	tunnel.Health = &health
	w.apply(tunnel)
	if got := w.probes("xxxxxxx"); got != "UUUUUUD" {
		t.Errorf("got %s", got)
	}
}

// Of a process that slept itself, nobody's silence can be told.
func TestALateProcessBlamesNobody(t *testing.T) {
	w := newWorld(t, probed(e1))
	w.probes("oooxx")
	for range 5 {
		w.now = w.now.Add(10 * time.Second)
		w.step()
	}
	w.down(false)
	w.changed(0)
}

func TestAnAnswerCountsOnceAndInItsTime(t *testing.T) {
	w := newWorld(t, probed(e1))
	w.probes("oo")
	b := w.m.probes[1].probe
	tag := uint64(b.id)<<32 | uint64(b.seq)
	count := b.count
	w.m.answered(tag, w.now)   // a second time
	w.m.answered(tag-1, w.now) // and of another one
	w.m.answered(99<<32, w.now)
	if b.count != count {
		t.Errorf("%d probes are counted, were %d", b.count, count)
	}
}

func TestLossAndRoundTripAreOfTheLastHundred(t *testing.T) {
	w := newWorld(t, probed(e1))
	status := func() ProbeStatus { return *w.m.status(w.m.tunnels["fra1"].peers[0], w.now).Probe }
	if got := status(); got != (ProbeStatus{To: inside}) {
		t.Errorf("at the beginning %+v", got)
	}
	w.echoes[inside] = true
	w.run(30 * time.Second)
	if got := status(); got != (ProbeStatus{To: inside, Sent: 30, Last: 10 * time.Millisecond, Median: 10 * time.Millisecond}) {
		t.Errorf("after 30 s %+v", got)
	}
	w.echoes[inside] = false
	w.run(50 * time.Second)
	if got := status(); got.Sent < 79 || got.Sent > 80 || got.Lost < 49 || got.Lost > 50 || !got.Down || got.Last != 10*time.Millisecond {
		t.Errorf("after 80 s %+v", got)
	}
	w.echoes[inside] = true
	w.run(101 * time.Second)
	if got := status(); got.Sent != 100 || got.Lost != 0 || got.Down {
		t.Errorf("after 181 s %+v", got)
	}
}

func TestRoutesCountAsWithdrawnOnceTheyAre(t *testing.T) {
	w := newWorld(t, probed(e1))
	w.stuck = true
	w.probes("ooxxxx")
	look := func() (kept bool, why, problem string) {
		s := w.m.status(w.m.tunnels["fra1"].peers[0], w.now)
		if w.m.problemsStale = false; !s.Probe.Down || len(w.m.problems()) != 1 {
			t.Fatalf("%+v, problems %v", s.Probe, w.m.problems())
		}
		return s.Probe.Kept, s.Why, w.m.problems()[0].Text
	}
	for _, said := range []func(kept bool, why, problem string){
		func(kept bool, why, problem string) {
			if !kept || !strings.Contains(why, "still to be withdrawn") || !strings.Contains(problem, "still to be withdrawn") {
				t.Errorf("before: %v %q %q", kept, why, problem)
			}
		},
		func(kept bool, why, problem string) {
			if kept || strings.Contains(why, "withdrawn") || !strings.HasSuffix(problem, "its routes are withdrawn") {
				t.Errorf("behind it: %v %q %q", kept, why, problem)
			}
		},
	} {
		said(look())
		if w.m.withdrawn(w.m.version - 1); w.m.problemsStale {
			t.Error("an earlier version withdrew them")
		}
		w.m.withdrawn(w.m.version)
	}
}

func TestAProbeThatCannotBeSentIsLostAndSaysWhy(t *testing.T) {
	w := newWorld(t, probed(e1))
	w.probes("oo")
	w.echoes[inside] = false
	for range 5 * int(time.Second/grid) {
		w.run(grid)
		w.m.refused(1<<32, errors.New("no such device"))
	}
	w.down(true)
	if text := w.events[len(w.events)-1].Text; text != "peer a is down: 3 probes of 10.20.0.1 in a row were lost (no such device)" {
		t.Error(text)
	}
}

func TestAPeerThatIsHeardAndAnswersNoProbeIsSaidToBe(t *testing.T) {
	const lost = "probes of 10.20.0.1 are not answered"
	for _, c := range []struct {
		name  string
		heard bool
		doubt string
	}{
		{"silent", false, ""},
		{"heard", true, "the peer is heard, so it drops them or has another way back (a firewall, rp_filter 1, no route to this tunnel's address)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, probed(e1))
			w.probes("oo")
			w.a().talks = true
			w.answers(e1)
			w.run(2 * time.Second)
			w.echoes[inside] = false
			if !c.heard {
				w.answers()
			}
			w.run(8 * time.Second)
			w.down(true)
			if s := w.m.status(w.m.tunnels["fra1"].peers[0], w.now); s.Why != lost || s.Doubt != c.doubt {
				t.Errorf("%q and %q, want %q and %q", s.Why, s.Doubt, lost, c.doubt)
			}
			w.a().handshake = w.now.Add(time.Hour) // the clock was set back
			w.restart()
			w.run(2 * time.Second)
			if s := w.m.status(w.m.tunnels["fra1"].peers[0], w.now); s.Why != lost || s.Doubt != c.doubt || s.Heard.IsZero() == c.heard {
				t.Errorf("after a restart %q and %q, heard %s, want %q and %q", s.Why, s.Doubt, s.Heard, lost, c.doubt)
			}
		})
	}
}

func TestTheProbesOfManyPeersAreSpreadOverTheIntervalAndLeaveTogetherWhereThatIsCheaper(t *testing.T) {
	const interval = 20 // steps of the grid
	for _, c := range []struct {
		name    string
		tunnels int
		gathers bool
		want    []int // how many probes leave at once in an interval, the most first
	}{
		{"one tunnel, each for itself", 1, false, slices.Repeat([]int{50}, interval)},
		{"ten tunnels, each for itself", 10, false, slices.Repeat([]int{50}, interval)},
		{"one tunnel, together", 1, true, []int{together, together, together, together, together, together, together, 1000 - 7*together}},
		{"ten tunnels, together", 10, true, slices.Repeat([]int{100}, 10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tunnels []config.Tunnel
			for i := range c.tunnels {
				tunnel := probed(e1)
				proto := tunnel.Peers[0]
				tunnel.Name, tunnel.Peers = fmt.Sprint("t", i), nil
				for n := range 1000 / c.tunnels {
					p := proto
					p.Name, p.PublicKeys = fmt.Sprint("p", n), []string{fmt.Sprint("key", i, "-", n)}
					tunnel.Peers = append(tunnel.Peers, p)
				}
				tunnels = append(tunnels, tunnel)
			}
			w := newWorld(t)
			w.m.gathers = func(string) bool { return c.gathers }
			w.apply(tunnels...)
			w.echoes[inside] = true
			w.run(2 * time.Second)
			var got []int
			for range interval {
				w.pings = nil
				w.step()
				w.now = w.now.Add(grid)
				if n := len(w.pings); n > 0 {
					got = append(got, n)
				}
			}
			slices.SortFunc(got, func(a, b int) int { return b - a })
			if !slices.Equal(got, c.want) {
				t.Errorf("%v leave at once, want %v", got, c.want)
			}
			at := w.now
			for wakes := 0; ; wakes++ { // and who sleeps until it is woken is woken for these alone, and for names and routes
				todo := w.m.tick(at)
				for _, p := range todo.ping {
					w.m.answered(p.Tag, at)
				}
				if at = todo.next; at.Sub(w.now) >= time.Second {
					if wakes > len(c.want)+2 {
						t.Errorf("woken %d times in a second", wakes)
					}
					break
				}
			}
		})
	}
}
