package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/compile"
)

// altered has the value of $fact be a runtime object, and changes it.
func (s *site) altered(e *Engine, to string) error {
	before := s.fact
	return e.Alter(s.t.Context(), Alteration{
		Why:   "workload w",
		Begin: func() error { s.fact = to; return nil },
		Judge: func(*compile.Desired) error { return nil },
		Keep:  func() error { return nil },
		Undo:  func() error { s.fact = before; return nil },
	})
}

// meeting is a machine of which a step fails; known says that the engine knows.
func meeting(t *testing.T, known bool) (*site, *Engine) {
	t.Helper()
	s, e := running(t, "wireguard.lone=1\nxdp.kernel=$fact\nbgp.a=1\nbgp.b=$fact")
	delete(s.m.state["wireguard"], "lone")
	s.refuse(errInjected, "wireguard set lone=1")
	if known {
		if err := e.Reconcile(t.Context(), Drift); !errors.Is(err, ErrDegraded) {
			t.Fatal(err)
		}
	}
	s.m.take()
	return s, e
}

func TestAnAlterationGoesAroundWhatFailsWithoutIt(t *testing.T) {
	for _, known := range []bool{true, false} {
		s, e := meeting(t, known)
		if err := s.altered(e, "6.18"); err != nil {
			t.Fatalf("known %v: %v", known, err)
		}
		s.holds("xdp.kernel=6.18\nbgp.a=1\nbgp.b=6.18")
		if log := s.m.take(); !slices.Equal(log, []string{"xdp change kernel=6.18", "bgp change b=6.18"}) {
			t.Errorf("known %v: steps %q", known, log)
		}
		s.condition(e, ConditionInSync, False)
		if c := s.condition(e, ConditionDegraded, True); !strings.Contains(c.Message, "wireguard: set lone=1: injected") {
			t.Errorf("known %v: %+v", known, c)
		}
		s.heal()
		s.clock.advance(time.Second)
		e.tick(t.Context())
		s.holds("wireguard.lone=1\nxdp.kernel=6.18\nbgp.a=1\nbgp.b=6.18")
		s.condition(e, ConditionDegraded, False)
		s.live(e, 1, 0)
	}
}

func TestAnAlterationThatFailsItselfIsUndoneBesideWhatFails(t *testing.T) {
	for _, known := range []bool{true, false} {
		s, e := meeting(t, known)
		s.refuse(errInjected, "wireguard set lone=1", "xdp change kernel=6.18")
		if err := s.altered(e, "6.18"); !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "xdp: change kernel=6.18") {
			t.Fatalf("known %v: %v", known, err)
		}
		s.holds("xdp.kernel=6.12\nbgp.a=1\nbgp.b=6.12")
		if s.fact != "6.12" {
			t.Errorf("known %v: it was not undone", known)
		}
	}
}

func TestAnAlterationGoesAroundWhatCannotBeObserved(t *testing.T) {
	for _, known := range []bool{true, false} {
		s, e := meeting(t, known)
		s.m.blind = "wireguard"
		if err := s.altered(e, "6.18"); err != nil {
			t.Fatalf("known %v: %v", known, err)
		}
		s.holds("xdp.kernel=6.18\nbgp.a=1\nbgp.b=6.18")
		s.condition(e, ConditionDegraded, True)
	}
}

// Nothing begins to be announced by an alteration while what carries it is lost.
func TestWhatAnAlterationBuildsOnWhatFailsWaits(t *testing.T) {
	s, e := running(t, "tc.a=1\nxdp.kernel=$fact\nbgp.b=$fact")
	delete(s.m.state["tc"], "a")
	s.refuse(errInjected, "tc set a=1")
	if err := s.altered(e, "6.18"); err != nil {
		t.Fatal(err)
	}
	s.holds("xdp.kernel=6.18\nbgp.b=6.12")
	s.heal()
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds("tc.a=1\nxdp.kernel=6.18\nbgp.b=6.18")
	s.condition(e, ConditionInSync, True)
}

// What an alteration builds on may be among the steps that the first failure left untried.
func TestWhatAnAlterationBuildsOnWhatWasNotTriedWaits(t *testing.T) {
	s, e := running(t, "wireguard.lone=1\ntc.a=1\ntc.b=$fact\nxdp.kernel=$fact")
	delete(s.m.state["wireguard"], "lone")
	delete(s.m.state["tc"], "a")
	s.refuse(errInjected, "wireguard set lone=1")
	if err := s.altered(e, "6.18"); err != nil {
		t.Fatal(err)
	}
	s.holds("tc.b=6.12\nxdp.kernel=6.18")
	s.heal()
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds("wireguard.lone=1\ntc.a=1\ntc.b=6.18\nxdp.kernel=6.18")
}

// Behind a failure nothing is taken away, which carries as it did.
func TestWhatWaitsToBeTakenAwayKeepsNoAlterationBack(t *testing.T) {
	s := booted(t, "wireguard.lone=1\ntc.a=1\nxdp.a=1\nbgp.b=$fact", "tc.old=1")
	s.refuse(errInjected, "wireguard set lone=1")
	e := s.engine()
	if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	if err := s.altered(e, "6.18"); err != nil {
		t.Fatal(err)
	}
	s.holds("tc.a=1\ntc.old=1\nxdp.a=1\nbgp.b=6.18")
}

// To an alteration it is in arrears like the rest, so it is for Mend, which has to know of it then.
func TestWhatSomebodyDeletesBesideWhatFailsIsBackBehindAnAlteration(t *testing.T) {
	s, e := meeting(t, true)
	deleted := true
	delete(s.m.state["bgp"], "a")
	e.opts.Look = func() func(*compile.Desired) bool {
		return func(*compile.Desired) bool {
			lacks := deleted
			deleted = false
			return lacks
		}
	}
	if err := s.altered(e, "6.18"); err != nil {
		t.Fatal(err)
	}
	s.holds("xdp.kernel=6.18\nbgp.b=6.12")
	if lacked, err := e.Mend(t.Context()); !lacked || !errors.Is(err, ErrDegraded) {
		t.Fatal(lacked, err)
	}
	s.holds("xdp.kernel=6.18\nbgp.a=1\nbgp.b=6.18")
	if st := e.Status(); st.Repaired != "" {
		t.Errorf("while degraded somebody is blamed: %q", st.Repaired)
	}
}
