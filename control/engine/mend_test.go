package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/control/compile"
)

// What goes after an operation began is missed by it, put back by it, and told by it.
func TestWhatIsDeletedIsToldOnceByWhicheverOperationBringsItBack(t *testing.T) {
	nothing := func() error { return nil }
	for name, operation := range map[string]func(context.Context, *Engine) error{
		"inspection": func(ctx context.Context, e *Engine) error { return e.Reconcile(ctx, Drift) },
		"mending": func(ctx context.Context, e *Engine) error {
			lacked, err := e.Mend(ctx)
			if !lacked {
				t.Error("nothing was lacking")
			}
			return err
		},
		"compilation": func(ctx context.Context, e *Engine) error { return e.Recompile(ctx, "eth0 came up") },
		"alteration": func(ctx context.Context, e *Engine) error {
			return e.Alter(ctx, Alteration{Why: "a workload", Begin: nothing, Judge: func(*compile.Desired) error { return nil }, Keep: nothing, Undo: nothing})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, e := running(t, confA)
			var told []string
			e.opts.Notify = func(n Notice) { told = append(told, string(n.Kind)+": "+n.Text) }
			missing := func(*compile.Desired) bool { return s.m.state["host"]["mtu"] == "" }
			deleting := true
			e.opts.Look = func() func(*compile.Desired) bool {
				if deleting {
					delete(s.m.state["host"], "mtu")
				}
				return missing
			}
			if err := operation(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			deleting = false
			if lacked, err := e.Mend(t.Context()); lacked || err != nil {
				t.Error(lacked, err)
			}
			if err := errors.Join(e.Reconcile(t.Context(), Drift), e.Recompile(t.Context(), "eth0 came up")); err != nil {
				t.Fatal(err)
			}
			s.holds(confA)
			if st := e.Status(); !slices.Equal(told, []string{"repaired: host: set mtu=1500"}) || st.Repaired != "host: set mtu=1500" || st.RepairedAt.IsZero() {
				t.Errorf("told %q, and the status has %q at %s", told, st.Repaired, st.RepairedAt)
			}
		})
	}
}

func TestWhatNobodyDeletedIsNoRepair(t *testing.T) {
	s, e := running(t, "host.a=1\nxdp.kernel=$fact")
	lacks := false
	e.opts.Look = func() func(*compile.Desired) bool { return func(*compile.Desired) bool { return lacks } }
	s.fact = "6.18"
	if lacked, err := e.Mend(t.Context()); lacked || err != nil {
		t.Error(lacked, err)
	}
	if err := e.Recompile(t.Context(), "eth0 came up"); err != nil {
		t.Fatal(err)
	}
	s.holds("host.a=1\nxdp.kernel=6.18")
	// Behind a failure something is missing by our own doing.
	s.fact = "6.19"
	s.failAt(1, 1, true)
	if err := e.Recompile(t.Context(), "eth0 went"); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.heal()
	lacks = true
	s.clock.advance(minute)
	e.tick(t.Context())
	s.holds("host.a=1\nxdp.kernel=6.19")
	if st := e.Status(); st.Repaired != "" {
		t.Errorf("told as a repair: %q", st.Repaired)
	}
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.m.take()
	if lacked, err := e.Mend(t.Context()); lacked || err != nil || s.m.take() != nil {
		t.Error("mended after down", lacked, err)
	}
}

func TestWhatIsDeletedIsToldAlsoWhereACompilationFails(t *testing.T) {
	s, e := running(t, "host.kernel=$fact\nxdp.gen=1")
	gone := false
	e.opts.Look = func() func(*compile.Desired) bool { return func(*compile.Desired) bool { return gone } }
	told := func(what string) {
		t.Helper()
		if st := e.Status(); !strings.Contains(st.Repaired, "xdp: set gen=1") {
			t.Errorf("%s: the last repair is %q", what, st.Repaired)
		}
		s.clock.advance(minute)
	}
	gone, s.fact = true, "6.18"
	delete(s.m.state["xdp"], "gen")
	s.failAt(1, 1, false)
	if err := e.Recompile(t.Context(), "eth0 went"); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	told("on the way back")
	e.report.repaired = ""
	delete(s.m.state["xdp"], "gen")
	s.heal()
	if lacked, err := e.Mend(t.Context()); !lacked || err != nil {
		t.Fatal(lacked, err)
	}
	s.holds("host.kernel=6.18\nxdp.gen=1")
	if st := e.Status(); st.Repaired != "" {
		t.Errorf("while degraded somebody is blamed: %q", st.Repaired)
	}
}

// The steps go back from what the engine did itself as well, which nobody is blamed for.
func TestWhatIsDeletedIsToldAlsoWhereAnAlterationFails(t *testing.T) {
	for _, gone := range []bool{true, false} {
		s, e := running(t, "host.kernel=$fact\nxdp.gen=1")
		looks := 0
		e.opts.Look = func() func(*compile.Desired) bool {
			return func(*compile.Desired) bool { looks++; return gone || looks > 1 }
		}
		if gone {
			delete(s.m.state["xdp"], "gen")
		}
		s.m.after = func(string, fakeOp) error { s.m.after = nil; return errInjected }
		if err := s.altered(e, "6.18"); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		s.holds("host.kernel=6.12\nxdp.gen=1")
		if st := e.Status(); strings.Contains(st.Repaired, "xdp: set gen=1") != gone || !gone && st.Repaired != "" {
			t.Errorf("gone %v: the last repair is %q", gone, st.Repaired)
		}
	}
}

// The machine changes under the steps, so that they are taken in two rounds.
func TestARepairIsToldWithTheStepsOfAllItsRounds(t *testing.T) {
	s, e := running(t, "host.a=1\nxdp.kernel=$fact")
	delete(s.m.state["host"], "a")
	e.opts.Look = func() func(*compile.Desired) bool {
		return func(*compile.Desired) bool { return s.m.state["host"]["a"] == "" }
	}
	s.fact = "6.18"
	s.m.before = func(sub string, _ fakeOp) error {
		if sub != "xdp" || s.fact != "6.18" {
			return nil
		}
		s.fact = "6.19"
		return errInjected
	}
	if err := e.Recompile(t.Context(), "eth0 came up"); err != nil {
		t.Fatal(err)
	}
	s.holds("host.a=1\nxdp.kernel=6.19")
	if st := e.Status(); st.Repaired != "host: set a=1; xdp: change kernel=6.19" {
		t.Errorf("told %q", st.Repaired)
	}
}
