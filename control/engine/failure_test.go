package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// failAt makes the machine fail its n-th op from now, counted from 1, before or after its effect; with to > n every op up
// to the to-th.
func (s *site) failAt(n, to int, late bool) {
	count := 0
	hook := func(string, fakeOp) error {
		if count++; count >= n && count <= to {
			return fmt.Errorf("%w failure %d", errInjected, count)
		}
		return nil
	}
	s.m.before, s.m.after = hook, nil
	if late {
		s.m.before, s.m.after = nil, hook
	}
}

func (s *site) heal() { s.m.before, s.m.after = nil, nil }

// ways are the transitions whose every step is made to fail: they add, change and tear down.
var ways = []struct{ name, from, to string }{
	{"add", confC, confC + "\nhost.x=1\ntc.x=1\nxdp.x=1\nbgp.x=1"},
	{"change", confA, strings.ReplaceAll(confA, "=1", "=7")},
	{"tear down", confA, "# nothing"},
	{"all of it", confA, confB},
}

func TestAFailureAtEveryStepReturnsToTheFormerState(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		for _, late := range []bool{false, true} {
			for _, confirm := range []time.Duration{0, minute} {
				t.Run(fmt.Sprintf("%s, after its effect %v, confirm %v", way.name, late, confirm), func(t *testing.T) {
					steps := 1
					for n := 1; n <= steps; n++ {
						s, e := running(t, way.from)
						p, err := e.Plan(t.Context(), s.candidate(way.to))
						if err != nil {
							t.Fatal(err)
						}
						steps = len(p.Steps)
						s.failAt(n, n, late)
						_, err = e.Apply(t.Context(), s.candidate(way.to), ApplyOptions{Confirm: confirm})
						var step *StepError
						if !errors.Is(err, errInjected) || !errors.As(err, &step) || step.N != n || step.Of != steps {
							t.Fatalf("step %d of %d: apply said %v", n, steps, err)
						}
						if errors.Is(err, ErrDegraded) {
							t.Errorf("step %d: %v", n, err)
						}
						s.holds(way.from)
						s.live(e, 1, 0)
						s.condition(e, ConditionDegraded, False)
						s.condition(e, ConditionInSync, True)
						if h := e.History(); len(h) != 2 || h[1].Status != Reverted || !strings.Contains(h[1].Reason, "injected") {
							t.Errorf("step %d: history %v", n, h)
						}
						s.heal()
						s.live(s.start(), 1, 0)
						s.holds(way.from)
					}
					if steps < 4 {
						t.Errorf("only %d steps were tried", steps)
					}
				})
			}
		}
	}
}

func TestAFailureWhileGoingBackIsSaidAndRepaired(t *testing.T) {
	t.Parallel()
	tried := 0
	for n := 1; n <= 15; n++ {
		for j := 1; j <= n; j++ {
			s, e := running(t, confA)
			count := 0
			s.m.before = func(string, fakeOp) error {
				if count++; count == n || count == n+j {
					return fmt.Errorf("%w at op %d", errInjected, count)
				}
				return nil
			}
			_, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{})
			if count < n+j {
				continue // going back took fewer steps
			}
			tried++
			if !errors.Is(err, ErrDegraded) {
				t.Fatalf("failing at %d and %d: %v", n, n+j, err)
			}
			c := s.condition(e, ConditionDegraded, True)
			for _, want := range []string{fmt.Sprintf("at op %d", n), fmt.Sprintf("at op %d", n+j), "revision 2", "revision 1"} {
				if !strings.Contains(c.Message, want) {
					t.Errorf("%q does not say %q", c.Message, want)
				}
			}
			if st := e.Status(); st.Applied || st.Revision != 1 || st.LastError == "" {
				t.Errorf("status %+v", st)
			}
			e.tick(t.Context())
			if s.m.String() == wanted(confA) && count > n+j {
				t.Error("repaired without a pause")
			}
			s.clock.advance(time.Second)
			e.tick(t.Context())
			s.holds(confA)
			s.condition(e, ConditionDegraded, False)
			s.live(e, 1, 0)
		}
	}
	if tried < 50 {
		t.Errorf("only %d pairs of failures were tried", tried)
	}
}

func TestADegradedMachineIsTriedAgainWithGrowingPauses(t *testing.T) {
	s, e := running(t, confA)
	s.failAt(3, 1<<30, false)
	if _, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{}); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	var pauses []time.Duration
	for range 9 {
		wait := e.tick(t.Context())
		pauses = append(pauses, wait)
		s.clock.advance(wait)
	}
	if have, want := fmt.Sprint(pauses), "[1s 2s 4s 8s 16s 32s 1m0s 1m0s 1m0s]"; have != want {
		t.Errorf("pauses %s, want %s", have, want)
	}
	s.heal()
	if wait := e.tick(t.Context()); wait != idle {
		t.Errorf("waits %s after the repair", wait)
	}
	s.holds(confA)
}

func TestAFailureOnTopOfAPendingRevisionReturnsToThePendingOne(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confC, ApplyOptions{Confirm: minute})
	s.clock.advance(20 * time.Second)
	s.failAt(5, 5, true)
	if _, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{Confirm: 10 * minute}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.heal()
	s.holds(confC)
	s.live(e, 2, 2)
	if p := e.Status().Pending; p.Remaining != 40 || p.Base != 1 {
		t.Errorf("pending %+v", p)
	}
	e = s.start()
	s.live(e, 2, 2)
	s.clock.advance(40 * time.Second)
	e.tick(t.Context())
	s.holds(confA)
}

func TestAClientThatGoesAwayStopsTheApplyAndNotTheGoingBack(t *testing.T) {
	s, e := running(t, confA)
	ctx, cancel := context.WithCancel(t.Context())
	count := 0
	s.m.before = func(string, fakeOp) error {
		if count++; count == 6 {
			cancel()
		}
		return nil
	}
	_, err := e.Apply(ctx, s.candidate(confB), ApplyOptions{})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.holds(confA)
	s.live(e, 1, 0)
	s.condition(e, ConditionInSync, True)
}

func TestAFirstApplyThatFailsGoesBackToNothing(t *testing.T) {
	s := newSite(t)
	e := s.start()
	s.failAt(4, 4, true)
	if _, err := e.Apply(t.Context(), s.candidate(confA), ApplyOptions{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.holds("")
	s.live(e, 0, 0)
}

func TestADiskThatFailsAtAnyWriteLeavesTheFormerState(t *testing.T) {
	t.Parallel()
	for _, confirm := range []time.Duration{0, minute} {
		for _, lasting := range []bool{false, true} {
			t.Run(fmt.Sprintf("confirm %v, lasting %v", confirm, lasting), func(t *testing.T) {
				n := 1
				for ; ; n++ {
					writes := 0
					failing := false
					s := newSite(t)
					s.disk.before = func(string, string) error {
						if !failing {
							return nil
						}
						if writes++; writes == n || lasting && writes > n {
							return fmt.Errorf("%w: disk full", errInjected)
						}
						return nil
					}
					s.file = confA
					e := s.start()
					failing = true
					_, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{Confirm: confirm})
					failing = false
					if writes < n {
						if err != nil {
							t.Fatal(err)
						}
						break
					}
					if err == nil || errors.Is(err, ErrDegraded) {
						t.Fatalf("write %d failing: %v", n, err)
					}
					s.holds(confA)
					e.tick(t.Context()) // pays what is owed to the disk
					if st := e.Status(); st.Revision != 1 || st.Pending != nil {
						t.Fatalf("write %d failing: %+v", n, st)
					}
					s.live(s.start(), 1, 0)
					s.holds(confA)
				}
				if n < 15 {
					t.Errorf("only %d writes were tried", n)
				}
			})
		}
	}
}
