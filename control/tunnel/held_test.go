package tunnel

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/config"
)

// pair are two tunnels with one peer each that carry one prefix: fra1, which is probed, and old, which need not be.
func pair() (fresh, old config.Tunnel) {
	fresh, old = probed(e1), one(e2)
	old.Name, old.Peers[0].Metric = "old", 200
	for _, t := range []*config.Tunnel{&fresh, &old} {
		t.Peers[0].Prefixes, t.Peers[0].Routes = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, true
	}
	return fresh, old
}

func TestANewPeerTakesNoRoutesFromAnotherTunnelBeforeItAnswers(t *testing.T) {
	fresh, old := pair()
	w := newWorld(t, old)
	w.apply(fresh, old)
	w.down(true)
	w.run(10 * time.Second)
	w.down(true)
	p := w.m.tunnels["fra1"].peers[0]
	if s := w.m.status(p, w.now); !s.Probe.Held || s.Probe.Down || !strings.Contains(s.Why, "its routes wait for the first answer") {
		t.Errorf("%+v %+v", s, s.Probe)
	}
	if len(w.m.problems())+len(w.events) > 0 {
		t.Errorf("while it may still come up: %+v %+v", w.m.problems(), w.events)
	}
	w.changed(0)
	w.echoes[inside] = true
	w.run(1100 * time.Millisecond)
	w.down(false)
	w.changed(1)
	w.echoes[inside] = false // from then on it is like any other
	w.run(5 * time.Second)
	w.down(true)
}

func TestANewPeerThatDoesNotAnswerIsDownAndNothingIsCompiledForIt(t *testing.T) {
	fresh, old := pair()
	w := newWorld(t, fresh, old)
	w.run(20 * time.Second)
	w.down(true)
	if want := (Event{PeerDown, "fra1", "a", "peer a is down: no probe of 10.20.0.1 was ever answered"}); !slices.Equal(w.events, []Event{want}) {
		t.Errorf("told %+v", w.events)
	}
	if len(w.m.problems()) != 1 {
		t.Errorf("problems %+v", w.m.problems())
	}
	w.changed(0)
	w.restart()
	w.down(true)
	w.echoes[inside] = true
	w.run(3 * time.Second) // it needs as many answers as any that was down for long
	w.down(true)
	w.run(4 * time.Second)
	w.down(false)
	w.restart() // and is not new any more
	w.down(false)
}

func TestWhoIsNotHeldForItsFirstAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(fresh, old *config.Tunnel)
	}{
		{"the only one with its prefix", func(_, old *config.Tunnel) { old.Peers[0].Prefixes[0] = netip.MustParsePrefix("10.30.0.0/16") }},
		{"beside one that has no routes", func(_, old *config.Tunnel) { old.Peers[0].Routes = false }},
		{"behind the other one", func(fresh, _ *config.Tunnel) { fresh.Peers[0].Metric = 300 }},
		{"behind the other one by what the kernel gives", func(fresh, old *config.Tunnel) {
			fresh.Peers[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:20::/48")}
			old.Peers[0].Prefixes = fresh.Peers[0].Prefixes
		}},
		{"without routes", func(fresh, _ *config.Tunnel) { fresh.Peers[0].Routes = false }},
		{"without a probe", func(fresh, _ *config.Tunnel) { fresh.Health = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh, old := pair()
			c.change(&fresh, &old)
			newWorld(t, fresh, old).down(false)
		})
	}
	t.Run("there before, alone", func(t *testing.T) {
		fresh, old := pair()
		w := newWorld(t, fresh)
		w.apply(fresh, old)
		w.down(false)
	})
	t.Run("new to the process alone", func(t *testing.T) {
		fresh, old := pair()
		w := newWorld(t, fresh, old)
		w.a().handshake = w.now.Add(-time.Minute)
		w.m = newMachine() // and the file is lost
		w.m.adopt(w.see(), w.now)
		w.apply(fresh, old)
		w.down(false)
	})
}
