package bfd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// told is a packet of a peer that says this state.
func told(state State) packet {
	return packet{state: state, multiplier: 3, mine: 77, yours: 1, minTx: time.Second, minRx: time.Second}
}

// in is a session in a state, in which it knows its peer.
func in(state State) *session {
	now := time.Unix(1000, 0)
	s := newSession(config(100*time.Millisecond, 3), 1, true, rand.Float64, now)
	s.become(state, NoDiag)
	s.remote = remote{state: state, yours: 77, minTx: time.Second, minRx: time.Second, multiplier: 3}
	s.polling = false
	return s
}

func TestStatesFollowThePeer(t *testing.T) {
	const same, untouched = Diag(255), Diag(5) // a diagnostic that no rule sets
	for _, c := range []struct {
		ours, theirs, want State
		diag               Diag
	}{
		{Down, AdminDown, Down, same}, {Down, Down, Init, same}, {Down, Init, Up, NoDiag}, {Down, Up, Down, same},
		{Init, AdminDown, Down, NeighborDown}, {Init, Down, Init, same}, {Init, Init, Up, NoDiag}, {Init, Up, Up, NoDiag},
		{Up, AdminDown, Down, NeighborDown}, {Up, Down, Down, NeighborDown}, {Up, Init, Up, same}, {Up, Up, Up, same},
		{AdminDown, AdminDown, AdminDown, same}, {AdminDown, Down, AdminDown, same}, {AdminDown, Init, AdminDown, same}, {AdminDown, Up, AdminDown, same},
	} {
		s := in(c.ours)
		s.diag = untouched
		want := c.diag
		if want == same {
			want = untouched
		}
		out, discard := s.receive(time.Unix(1000, 0), told(c.theirs))
		if s.state != c.want || s.diag != want {
			t.Errorf("%s, told %s: %s (%s), want %s (%s)", c.ours, c.theirs, s.state, s.diag, c.want, want)
		}
		if changed := c.ours != c.want; changed != (len(out) == 1) {
			t.Errorf("%s, told %s: %d packets at once", c.ours, c.theirs, len(out))
		}
		if (discard == Disabled) != (c.ours == AdminDown) {
			t.Errorf("%s, told %s: %s", c.ours, c.theirs, discard)
		}
	}
}

func TestAPollIsAnsweredAtOnceInEveryState(t *testing.T) {
	for _, ours := range []State{Down, Init, Up} {
		for _, theirs := range []State{AdminDown, Down, Init, Up} {
			p := told(theirs)
			p.flags = flagPoll
			s := in(ours)
			s.polling = true // of our own: P and F never meet in one packet
			out, _ := s.receive(time.Unix(1000, 0), p)
			if len(out) != 1 || out[0].flags != flagFinal|flagCPI || out[0].state != s.state {
				t.Errorf("%s, polled by %s: %+v", ours, theirs, out)
			}
		}
	}
}

func TestAPacketWithAuthenticationChangesNothing(t *testing.T) {
	s := in(Up)
	before, p := *s, told(Down)
	p.flags = flagAuth
	out, discard := s.receive(time.Unix(2000, 0), p)
	if discard != Authenticated || out != nil || s.state != Up || s.remote != before.remote || s.heard != before.heard {
		t.Errorf("%s, %v, %s", discard, out, s.state)
	}
}

// Of a session that another process held the peer hears nothing but Up; a peer that is dead by then has failed.
func TestASessionIsResumedWhereItsPeerStillHasIt(t *testing.T) {
	resumed := func() (s *session, now time.Time) {
		now = time.Unix(1000, 0)
		s = newSession(config(100*time.Millisecond, 3), 1, true, rand.Float64, now)
		s.resume(now)
		if out := s.tick(now); s.state != Up || out != nil {
			t.Errorf("%s, it said %v", s.state, out)
		}
		return s, now
	}
	s, now := resumed()
	if _, discard := s.receive(now.Add(250*time.Millisecond), told(Up)); discard != Accepted {
		t.Error(discard)
	}
	if out := s.tick(now.Add(250 * time.Millisecond)); s.state != Up || len(out) != 1 || out[0].state != Up || out[0].mine != 1 || out[0].yours != 77 {
		t.Errorf("%s, it said %+v", s.state, out)
	}
	s, now = resumed()
	if out := s.tick(s.due()); s.state != Down || s.diag != TimeExpired || len(out) != 1 || out[0].state != Down || s.due().Sub(now) < 300*time.Millisecond {
		t.Errorf("%s (%s), it said %+v", s.state, s.diag, out)
	}
	s, now = resumed()
	if s.receive(now, told(Down)); s.state != Down || s.diag != NeighborDown {
		t.Errorf("%s (%s)", s.state, s.diag)
	}
}

func TestSessionsComeUpAndGoDownTogether(t *testing.T) {
	for _, multiplier := range []uint8{1, 3, 255} {
		w := newWorld(1, config(100*time.Millisecond, multiplier), config(50*time.Millisecond, 3))
		w.until(t, "up", w.settled)
		for i, s := range w.ends {
			if s.minTx != s.config.MinTx || s.usedTx != s.minTx || s.remote.yours != uint32(2-i) {
				t.Errorf("end %d sends every %v, used %v, to %d", i, s.minTx, s.usedTx, s.remote.yours)
			}
		}
		if got, want := w.ends[1].detectionTime(), time.Duration(multiplier)*100*time.Millisecond; got != want {
			t.Errorf("detection time %v, want %v", got, want)
		}
		w.ends[0].minTx = 0 // nothing may depend on it now
		w.put(0, w.ends[0].disable(w.now))
		w.until(t, "told", func() bool { return w.ends[1].state == Down })
		if s := w.ends[1]; s.diag != NeighborDown || s.remote.state != AdminDown || s.remote.diag != AdminDiag {
			t.Errorf("the peer has %s, and heard %s (%s)", s.diag, s.remote.state, s.remote.diag)
		}
		if d := w.ends[0].retire.Sub(w.now); d < time.Duration(multiplier)*slowStart-w.delay {
			t.Errorf("it takes its leave for %v only", d)
		}
		w.run(10 * time.Second)
		if w.ends[1].state != Down || w.ends[0].state != AdminDown {
			t.Errorf("later: %s, %s", w.ends[0].state, w.ends[1].state)
		}
		w.ends[0].enable(w.now, w.ends[0].config)
		w.until(t, "up again", w.settled)
	}
}

func TestASilentLinkIsSeenWithinTheDetectionTime(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(seed, config(100*time.Millisecond, 3), config(300*time.Millisecond, 2))
		w.until(t, "up", w.settled)
		w.run(time.Duration(seed) * 7 * time.Millisecond)
		w.lost = func(int) bool { return true }
		w.wire = nil
		for i, s := range w.ends {
			bound := s.heard.Add(s.detectionTime())
			w.until(t, "down", func() bool { return s.state == Down })
			if w.now.After(bound) && i == 0 || s.diag != TimeExpired {
				t.Errorf("seed %d: end %d is down %v late, with %q", seed, i, w.now.Sub(bound), s.diag)
			}
		}
		if s := w.ends[0]; s.remote != forgotten {
			t.Errorf("seed %d: a peer that is silent is remembered: %+v", seed, s.remote)
		}
		w.lost = nil
		w.until(t, "up again", w.settled)
	}
}

// What one end hears and the other does not, ends for both: an end that hears nothing says so.
func TestALinkThatLosesOneDirectionEndsBothSessions(t *testing.T) {
	for deaf := range 2 {
		w := newWorld(uint64(deaf), config(100*time.Millisecond, 3), config(100*time.Millisecond, 3))
		w.until(t, "up", w.settled)
		w.lost = func(from int) bool { return from != deaf }
		took := w.until(t, "down", func() bool { return w.ends[deaf].state == Down && w.ends[1-deaf].state == Down })
		if took > 302*time.Millisecond || w.ends[deaf].diag != TimeExpired || w.ends[1-deaf].diag != NeighborDown {
			t.Errorf("after %v: %s and %s", took, w.ends[deaf].diag, w.ends[1-deaf].diag)
		}
		w.until(t, "silence", func() bool { return w.ends[deaf].remote == forgotten })
		if w.run(20 * time.Second); w.ends[deaf].state != Down || w.ends[1-deaf].state == Up {
			t.Errorf("then: %s and %s", w.ends[deaf].state, w.ends[1-deaf].state)
		}
	}
}

// However a link loses packets: an end is up only while it heard the peer within its detection time, and two ends never
// disagree for longer than it takes to hear of it.
func TestNoLossMakesAnEndBelieveInAPeerThatIsGone(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		pick := func() Config { return config(time.Duration(20+r.IntN(2000))*time.Millisecond, uint8(1+r.IntN(5))) }
		w := newWorld(seed, pick(), pick())
		w.delay = time.Duration(r.IntN(20)) * time.Millisecond
		loss := [2]float64{r.Float64(), r.Float64()}
		w.lost = func(from int) bool { return r.Float64() < loss[from] }
		var apart time.Time // since when one is up and the other down
		var patience time.Duration
		for end := w.now.Add(2 * time.Minute); w.now.Before(end); {
			w.step()
			for i, s := range w.ends {
				if s.state == Up && w.now.After(s.heard.Add(s.detectionTime())) {
					t.Fatalf("seed %d: end %d is up %v after it last heard", seed, i, w.now.Sub(s.heard))
				}
				if s.state == Up {
					patience = max(patience, s.detectionTime())
				}
			}
			a, b := w.ends[0].state, w.ends[1].state
			switch { // Init beside Up is on the way up, and may last
			case a == b || a == Init || b == Init:
				apart, patience = time.Time{}, 0
			case apart.IsZero():
				apart = w.now
			case w.now.Sub(apart) > patience+2*w.delay:
				t.Fatalf("seed %d: %s and %s for %v", seed, a, b, w.now.Sub(apart))
			}
		}
		w.lost = nil
		w.until(t, fmt.Sprintf("seed %d: up once nothing is lost", seed), w.settled)
	}
}

// RFC 5880 section 6.8.3: until a session is up, its packets say an interval of a second at least, and come no faster, but for those that
// tell of a new state. Once up it takes its own, by a poll.
func TestAFreshSessionIsSlowUntilItIsUp(t *testing.T) {
	for _, c := range []struct{ wanted, slow time.Duration }{{10 * time.Millisecond, time.Second}, {100 * time.Millisecond, time.Second}, {2 * time.Second, 2 * time.Second}} {
		w := newWorld(5, config(c.wanted, 3), config(c.wanted, 3))
		sent, turns, quick := 0, 0, 0
		last, state := time.Time{}, Down
		w.sent = func(from int, p packet) {
			if from != 0 {
				return
			}
			sent++
			if p.state != Up && (p.minTx != c.slow || p.flags&flagPoll != 0) {
				t.Errorf("%v: %s with an interval of %v, flags %x", c.wanted, p.state, p.minTx, p.flags)
			}
			if p.state == Up && (p.minTx != c.wanted || c.wanted != c.slow && p.flags&(flagPoll|flagFinal) == 0 && w.ends[0].polling) {
				t.Errorf("%v: up with an interval of %v, flags %x", c.wanted, p.minTx, p.flags)
			}
			if p.state != state {
				turns++
			} else if p.state != Up && !last.IsZero() && w.now.Sub(last) < c.slow*3/4 {
				quick++
			}
			last, state = w.now, p.state
		}
		// Nobody hears it for 20 s; then only it hears the other, and stays in Init.
		w.lost = func(int) bool { return true }
		w.run(20 * time.Second)
		if least, most := int(20*time.Second/c.slow), int(20*time.Second/(c.slow*3/4))+1; sent < least || sent > most {
			t.Errorf("%v: %d packets in 20 s to nobody, want %d to %d", c.wanted, sent, least, most)
		}
		w.lost = func(from int) bool { return from == 0 }
		w.run(20 * time.Second)
		if w.ends[0].state != Init || turns != 1 || quick > 0 {
			t.Errorf("%v: %s after %d turns, %d packets too soon", c.wanted, w.ends[0].state, turns, quick)
		}
		w.lost = nil
		w.until(t, "up", w.settled)
		sent = 0
		w.run(20 * time.Second)
		if least := int(20 * time.Second / c.wanted); sent < least {
			t.Errorf("%v: %d packets in 20 s once up, want %d and more", c.wanted, sent, least)
		}
	}
}

func TestPacketsAreJitteredAndSlowWhileDown(t *testing.T) {
	for multiplier, bounds := range map[uint8][2]float64{1: {0.75, 0.90}, 3: {0.75, 1.00}} {
		w := newWorld(3, config(100*time.Millisecond, multiplier), config(100*time.Millisecond, 3))
		var last time.Time
		gaps := map[bool][]float64{} // by whether the session is up, in units of the interval
		w.sent = func(from int, p packet) {
			if from != 0 || p.flags&flagFinal != 0 {
				return
			}
			if s := w.ends[0]; !last.IsZero() {
				interval := map[bool]time.Duration{true: 100 * time.Millisecond, false: time.Second}[s.state == Up]
				gaps[s.state == Up] = append(gaps[s.state == Up], float64(w.now.Sub(last))/float64(interval))
			}
			last = w.now
		}
		w.lost = func(int) bool { return true }
		w.run(200 * time.Second)
		w.lost = nil
		w.until(t, "up", w.settled)
		w.run(time.Second)
		gaps[true] = nil
		w.run(200 * time.Second)
		for up, gaps := range gaps {
			least, most := 10.0, 0.0
			for _, g := range gaps {
				least, most = min(least, g), max(most, g)
			}
			if up && (least < bounds[0] || most > bounds[1]+0.001 || most-least < (bounds[1]-bounds[0])*0.8) {
				t.Errorf("multiplier %d, up: gaps of %.3f to %.3f intervals (%d)", multiplier, least, most, len(gaps))
			}
			if !up && len(gaps) < 150 {
				t.Errorf("only %d gaps while down", len(gaps))
			}
		}
	}
}

func TestChangedIntervalsArePolledAndLongerOnesWaitForTheAnswer(t *testing.T) {
	fast, slow := config(100*time.Millisecond, 3), config(400*time.Millisecond, 3)
	w := newWorld(4, fast, fast)
	w.until(t, "up", w.settled)
	flaps := 0
	w.sent = func(_ int, p packet) {
		if p.state != Up {
			flaps++
		}
	}
	a, b := w.ends[0], w.ends[1]

	w.lost = func(from int) bool { return from == 1 } // no answer comes
	a.configure(w.now, slow)
	if a.minTx != slow.MinTx || a.usedTx != fast.MinTx || a.usedRx != slow.MinRx || !a.polling {
		t.Errorf("slower, before the answer: says %v, sends by %v, waits by %v", a.minTx, a.usedTx, a.usedRx)
	}
	w.run(150 * time.Millisecond)
	w.lost = nil
	w.until(t, "slower", w.settled)
	if a.usedTx != slow.MinTx || b.detectionTime() != 3*slow.MinTx {
		t.Errorf("slower: sends by %v, the peer waits %v", a.usedTx, b.detectionTime())
	}

	a.configure(w.now, fast)
	if a.usedTx != fast.MinTx || a.usedRx != slow.MinRx {
		t.Errorf("faster, before the answer: sends by %v, waits by %v", a.usedTx, a.usedRx)
	}
	// A second change, and back: the first answer is not the second's.
	a.configure(w.now, slow)
	if !a.polling || !a.again {
		t.Error("a change during a poll is not polled anew")
	}
	w.until(t, "slower again", w.settled)
	w.run(3 * time.Second)
	a.configure(w.now, fast)
	b.configure(w.now, slow)
	w.until(t, "both", w.settled)
	w.run(3 * time.Second)
	if flaps > 0 {
		t.Errorf("%d packets that do not say up", flaps)
	}
	if a.detectionTime() != 3*slow.MinTx || b.detectionTime() != 3*slow.MinRx {
		t.Errorf("in the end they wait %v and %v", a.detectionTime(), b.detectionTime())
	}
}

func TestAPeerMayAskForSilence(t *testing.T) {
	w := newWorld(5, config(100*time.Millisecond, 3), config(100*time.Millisecond, 3))
	w.until(t, "up", w.settled)
	s, now := w.ends[0], w.now
	for what, silence := range map[string]func(p *packet){
		"demand mode": func(p *packet) { p.flags = flagDemand }, "a required min RX of 0": func(p *packet) { p.minRx = 0 },
	} {
		p := packet{state: Up, multiplier: 255, mine: 2, yours: 1, minTx: time.Second, minRx: time.Second}
		silence(&p)
		s.receive(now, p)
		if out := s.tick(now.Add(time.Minute)); out != nil || !s.due().Equal(now.Add(255*time.Second)) {
			t.Errorf("%s: sends %v, next at %v", what, out, s.due().Sub(now))
		}
		p.flags |= flagPoll
		if out, _ := s.receive(now, p); len(out) != 1 {
			t.Errorf("%s: a poll is answered by %v", what, out)
		}
	}
}
