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
