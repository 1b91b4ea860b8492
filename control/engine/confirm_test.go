package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestConfirmInTimeKeepsTheRevision(t *testing.T) {
	s, e := running(t, confA)
	r := s.apply(e, confB, ApplyOptions{Confirm: minute, Message: "try it", Author: "root", UID: 0})
	if r.Revision != 2 || r.Pending == nil || *r.Pending.copy() != (pendingView{2, 1, 60, true}) {
		t.Errorf("result %+v, pending %+v", r, r.Pending)
	}
	s.live(e, 2, 2)
	s.clock.advance(59 * time.Second)
	e.tick(t.Context())
	if n, err := e.Confirm(t.Context()); n != 2 || err != nil {
		t.Errorf("confirm: %d, %v", n, err)
	}
	s.clock.advance(time.Hour)
	e.tick(t.Context())
	s.holds(confB)
	s.live(e, 2, 0)
	if _, err := e.Confirm(t.Context()); !errors.Is(err, ErrNotPending) {
		t.Errorf("a second confirm: %v", err)
	}
}

// pendingView is the comparable part of a PendingStatus.
type pendingView struct {
	Revision, Base int
	Remaining      float64
	Confirm        bool
}

func (p *PendingStatus) copy() *pendingView {
	return &pendingView{p.Revision, p.Base, p.Remaining, p.Confirm}
}

func TestWithoutConfirmTheBaseComesBack(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	if wait := e.tick(t.Context()); wait != heartbeat {
		t.Errorf("waits %s", wait)
	}
	s.clock.advance(57 * time.Second)
	if wait := e.tick(t.Context()); wait != 3*time.Second {
		t.Errorf("waits %s with 3 s left", wait)
	}
	s.clock.advance(3 * time.Second)
	if wait := e.tick(t.Context()); wait != idle {
		t.Errorf("waits %s", wait)
	}
	s.holds(confA)
	s.live(e, 1, 0)
	if st := e.Status(); st.LastError != "reverted: revision 2: not confirmed in time" || !st.Applied {
		t.Errorf("status %+v", st)
	}
	if h := history(e); h != "confirmed first start from sluice.yaml\nreverted  (not confirmed in time)\n" {
		t.Errorf("history\n%s", h)
	}
}

func TestConfirmTooLate(t *testing.T) {
	for _, ticked := range []bool{true, false} {
		s, e := running(t, confA)
		s.apply(e, confB, ApplyOptions{Confirm: minute})
		s.clock.advance(minute)
		if ticked {
			e.tick(t.Context())
		}
		_, err := e.Confirm(t.Context())
		if !errors.Is(err, ErrNotPending) || !strings.Contains(err.Error(), "revision 2 was reverted: not confirmed in time") {
			t.Errorf("ticked %v: %v", ticked, err)
		}
		s.holds(confA)
		s.live(e, 1, 0)
	}
}

func TestApplyWhilePendingNeedsAConfirmOfItsOwnAndKeepsTheBase(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	s.clock.advance(30 * time.Second)
	books := tree(t, s.dir)
	_, err := e.Apply(t.Context(), s.candidate(confC), ApplyOptions{})
	if !errors.Is(err, ErrPending) || !strings.Contains(err.Error(), "revision 2 has 30s left") {
		t.Fatalf("apply while pending: %v", err)
	}
	if _, err := e.Rollback(t.Context(), 2, ApplyOptions{}); !errors.Is(err, ErrPending) {
		t.Fatalf("rollback while pending: %v", err)
	}
	if tree(t, s.dir) != books {
		t.Error("a refused apply left something on the disk")
	}
	s.holds(confB)
	s.apply(e, confC, ApplyOptions{Confirm: minute})
	s.live(e, 3, 3)
	if p := e.Status().Pending.copy(); *p != (pendingView{3, 1, 60, true}) {
		t.Errorf("pending %+v", p)
	}
	s.clock.advance(minute)
	e.tick(t.Context())
	s.holds(confA)
	s.live(e, 1, 0)
	want := "confirmed first start from sluice.yaml\nreverted  (replaced by revision 3)\nreverted  (not confirmed in time)\n"
	if h := history(e); h != want {
		t.Errorf("history\n%s", h)
	}
}

func TestApplyingThePendingFileAgainRestartsTheClock(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	s.clock.advance(50 * time.Second)
	r := s.apply(e, confB, ApplyOptions{Confirm: 2 * minute})
	if !r.Unchanged || r.Revision != 2 || *r.Pending.copy() != (pendingView{2, 1, 120, true}) {
		t.Errorf("result %+v, pending %+v", r, r.Pending)
	}
	if p := s.start().Status().Pending; p == nil || p.Remaining != 120 {
		t.Errorf("on the disk: %+v", p)
	}
}

func TestANegativeConfirmAndAnUnparsedCandidateAreRefused(t *testing.T) {
	s, e := running(t, confA)
	if _, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{Confirm: -1}); err == nil {
		t.Error("confirm -1 was taken")
	}
	if _, err := e.Apply(t.Context(), Candidate{Bytes: []byte(confB)}, ApplyOptions{}); err == nil {
		t.Error("a candidate without a Config was taken")
	}
	s.holds(confA)
	s.live(e, 1, 0)
}

func TestGoingBackTakesTheFactsOfNow(t *testing.T) {
	s, e := running(t, "xdp.kernel=$fact")
	s.holds("xdp.kernel=6.12")
	s.apply(e, confC, ApplyOptions{Confirm: minute})
	s.fact = "6.18"
	s.clock.advance(minute)
	e.tick(t.Context())
	s.holds("xdp.kernel=6.18")
}

func TestGoingBackToABaseThatNoLongerCompilesTakesItsLastForm(t *testing.T) {
	s, e := running(t, "xdp.kernel=$fact")
	s.apply(e, confC, ApplyOptions{Confirm: minute})
	s.fact = ""
	s.clock.advance(minute)
	e.tick(t.Context())
	s.holds("xdp.kernel=6.12")
	s.live(e, 1, 0)
	if c := s.condition(e, ConditionDegraded, True); c.Reason != "CompileFailed" {
		t.Errorf("condition %+v", c)
	}
	s.fact = "6.18"
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds("xdp.kernel=6.18")
	s.condition(e, ConditionDegraded, False)
}

const confChecked = confB + "\ncheck"

func TestAFailingCheckGoesBackSoonerThanTheTimer(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confChecked, ApplyOptions{Confirm: 10 * minute})
	s.check.set("tor-a is down")
	for range 10 {
		s.live(e, 2, 2)
		e.tick(t.Context())
		s.clock.advance(time.Second)
	}
	if p := e.Status().Pending; len(p.Failing) != 1 || p.Failing[0].Message != "tor-a is down" {
		t.Errorf("pending %+v", p)
	}
	c := s.condition(e, ConditionChecks, False)
	if c.Reason != "Failing" || c.Message != "neighbors keep: tor-a is down" {
		t.Errorf("condition %+v", c)
	}
	e.tick(t.Context())
	s.holds(confA)
	s.live(e, 1, 0)
	if h := e.History()[1]; h.Reason != "check failed: neighbors keep: tor-a is down" {
		t.Errorf("reason %q", h.Reason)
	}
	s.without(e, ConditionChecks) // the base failed none
}

func TestHistoryNamesTheCheckThatFailedWhenTheTimeWasUp(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confChecked, ApplyOptions{Confirm: minute})
	s.clock.advance(minute - time.Second)
	s.check.set("tor-a is down")
	e.tick(t.Context())
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.live(e, 1, 0)
	if h := e.History()[1]; h.Reason != "not confirmed in time, and a check failed: neighbors keep: tor-a is down" {
		t.Errorf("reason %q", h.Reason)
	}
}

func TestWhatChecksFoundIsOfTheRevisionTheyLookedAt(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confChecked, ApplyOptions{Confirm: 10 * minute})
	s.check.set("tor-a is down")
	e.tick(t.Context())
	s.condition(e, ConditionChecks, False)
	s.apply(e, confB, ApplyOptions{Confirm: 10 * minute}) // without checks
	e.tick(t.Context())
	s.without(e, ConditionChecks)
}

func TestACheckThatFailsForAMomentIsForgiven(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confChecked, ApplyOptions{Confirm: 10 * minute})
	for range 10 {
		s.check.set("tor-a is down")
		for range 9 {
			e.tick(t.Context())
			s.clock.advance(time.Second)
		}
		s.check.set("")
		e.tick(t.Context())
		s.clock.advance(time.Second)
	}
	s.live(e, 2, 2)
	s.condition(e, ConditionChecks, True)
}

func TestChecksGoOnAfterARestartWithTheBaselineOfBefore(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confChecked, ApplyOptions{Confirm: 10 * minute})
	e.tick(t.Context())
	s.apply(e, confChecked+"\nhost.more=1", ApplyOptions{Confirm: 10 * minute})
	e.tick(t.Context())
	e = s.start()
	e.tick(t.Context())
	if have := strings.Join(s.check.seen, ","); have != `"baseline 1","baseline 1","baseline 1"` {
		t.Errorf("checked against %s", have)
	}
}

// finish lets time pass until an apply that waits for its checks returns.
func (s *site) finish(e *Engine, text string) (Result, error) {
	s.t.Helper()
	type end struct {
		r   Result
		err error
	}
	ended := make(chan end, 1)
	c := s.candidate(text)
	go func() {
		r, err := e.Apply(s.t.Context(), c, ApplyOptions{})
		ended <- end{r, err}
	}()
	limit := time.After(20 * time.Second) // real time, only for a test that fails
	for {
		select {
		case x := <-ended:
			return x.r, x.err
		case <-limit:
			s.t.Fatal("apply did not return")
		default:
			if e.Status().Pending != nil {
				e.tick(s.t.Context())
				s.clock.advance(time.Second)
			}
		}
	}
}

func TestAnApplyWithChecksIsConfirmedWhenTheyHoldThroughTheWindow(t *testing.T) {
	s, e := running(t, confA)
	before := s.clock.Boot()
	r, err := s.finish(e, confChecked)
	if err != nil || r.Revision != 2 || r.Pending != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if took := s.clock.Boot() - before; took < 30*time.Second {
		t.Errorf("was watched for %s only", took)
	}
	s.holds(confChecked)
	s.live(e, 2, 0)
}

func TestAnApplyWithChecksThatFailGoesBack(t *testing.T) {
	s, e := running(t, confA)
	s.check.set("no answer")
	before := s.clock.Boot()
	_, err := s.finish(e, confChecked)
	if !errors.Is(err, ErrReverted) || !strings.Contains(err.Error(), "no answer") {
		t.Fatal(err)
	}
	if took := s.clock.Boot() - before; took < 10*time.Second || took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	s.holds(confA)
	s.live(e, 1, 0)
}

func TestAClientThatGoesAwayLeavesTheRevisionUnderItsChecks(t *testing.T) {
	s, e := running(t, confA)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := s.candidate(confChecked)
	go func() {
		_, err := e.Apply(ctx, c, ApplyOptions{})
		ended <- err
	}()
	for e.Status().Pending == nil {
		if t.Context().Err() != nil {
			t.Fatal("never pending")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for range 31 {
		e.tick(t.Context())
		s.clock.advance(time.Second)
	}
	s.holds(confChecked)
	s.live(e, 2, 0)
}

func TestRunKeepsTheDeadline(t *testing.T) {
	s, e := running(t, confA)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	limit := time.Now().Add(20 * time.Second)
	for e.Status().Pending != nil {
		if time.Now().After(limit) {
			t.Fatal("still pending")
		}
		s.clock.advance(time.Second)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	s.holds(confA)
	s.live(e, 1, 0)
}

func TestARollbackEndsWhatIsPendingAtOnce(t *testing.T) {
	for _, n := range []int{0, 1} { // no revision, or the base
		s, e := running(t, confA)
		s.apply(e, confB, ApplyOptions{Confirm: minute})
		r, err := e.Rollback(t.Context(), n, ApplyOptions{})
		if err != nil || r.Revision != 1 || r.WentBack != 2 || r.Pending != nil {
			t.Fatalf("rollback %d: %+v, %v", n, r, err)
		}
		s.holds(confA)
		s.live(e, 1, 0)
		if _, err := e.Rollback(t.Context(), 0, ApplyOptions{}); !errors.Is(err, ErrNotPending) || !strings.Contains(err.Error(), "say which") {
			t.Errorf("with nothing pending: %v", err)
		}
		// With nothing pending an earlier revision is a new one.
		if r, err := e.Rollback(t.Context(), 2, ApplyOptions{}); err != nil || r.Revision != 3 || r.WentBack != 0 {
			t.Errorf("rollback 2: %+v, %v", r, err)
		}
		s.holds(confB)
	}
}
