package tunnel

import (
	"slices"
	"testing"
	"time"
)

func TestWhatIsWithheldIsCompiledThoughSomethingElseTurnsMeanwhile(t *testing.T) {
	o := newOutside(t, quick())
	o.dns[hub] = addresses("198.51.100.7")
	w := o.watch(t)
	o.runs(t, w)
	o.until("the peer is up", func() bool {
		s := w.Status()
		return len(s) == 1 && s[0].Peers[0].Probe.Last > 0 && len(o.compiled) > 0
	})
	// Whenever a version is withheld there is a newer one already.
	turns := func() {
		w.locked(func(m *machine) {
			p := m.tunnels["fra1"].peers[0]
			m.turn(p, !p.probe.down, time.Now(), "it flaps")
		})
		poke(w.again)
	}
	o.set(func() { o.compiled, o.withheld, o.during = nil, nil, turns })
	turns()
	o.until("it is compiled again and again", func() bool { return len(o.compiled) > 2 && len(o.withheld) > 10 })
	o.set(func() { o.during = nil })
	o.until("the last thing that is withheld is compiled", func() bool {
		var done bool
		w.locked(func(m *machine) { done = m.applied == m.version && len(m.why) == 0 })
		return done && len(o.withheld[len(o.withheld)-1]) == 0 && !o.compiled[len(o.compiled)-1].Peers["a"].Down
	})
}

// What Now gives may be newer than what is withheld, and is compiled once more: a peer that is back in it is withheld still.
func TestAVersionIsCompiledOnlyOnceItIsWithheld(t *testing.T) {
	at := time.Now()
	m := newMachine()
	m.compiled(0, time.Minute, at) // other endpoints alone wait for ten seconds
	wants := func(what string, pause time.Duration, version uint64, why ...string) {
		t.Helper()
		if got := m.pause(at); got != pause {
			t.Errorf("%s: pause %s, want %s", what, got, pause)
		}
		if pause > 0 {
			return
		}
		ready := m.told > m.applied
		if ready != (version > 0) {
			t.Errorf("%s: ready is %v", what, ready)
		}
		if !ready {
			return
		}
		got, reasons := m.compiling()
		if got != version || !slices.Equal(reasons, why) {
			t.Errorf("%s: version %d because of %q, want %d because of %q", what, got, reasons, version, why)
		}
		m.compiled(got, time.Minute, at)
	}
	m.change(Event{EndpointChanged, "fra1", "a", "one"})
	wants("nothing is withheld", 0, 0)
	m.withheld(1, false)
	m.change(Event{PeerUp, "fra1", "b", "two"})
	wants("an endpoint is", calmMax, 0)
	m.withheld(2, true)
	m.change(Event{PeerDown, "fra1", "c", "three"})
	m.change(Event{PeerUp, "fra1", "c", "four"})
	wants("two of four are", 0, 2, "tunnel fra1: one", "tunnel fra1: two")
	wants("the others are not yet", 0, 0)
	m.withheld(4, false)
	wants("the others are", 0, 4, "tunnel fra1: three", "tunnel fra1: four")
	m.withheld(4, true)
	wants("one is not probed any more", 0, 5, "peers that were down are not probed any more")
}
