package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNoticesTellTheTurnsOfARevisionAsTheyHappen(t *testing.T) {
	s := newSite(t)
	s.file = confA
	var got []Notice
	e := s.engine()
	e.opts.Notify = func(n Notice) { got = append(got, n) }
	want := func(what string, notices ...Notice) {
		t.Helper()
		if diff := cmp.Diff(notices, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		got = nil
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("the first start", Notice{NoticeApplied, 1, "first start from sluice.yaml"})
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	want("an apply with confirm", Notice{NoticePending, 2, "goes back to revision 1 in 1m0s"})
	s.clock.advance(2 * time.Minute)
	e.tick(t.Context())
	want("without a confirm", Notice{NoticeReverted, 2, "not confirmed in time; back at revision 1"})
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	if _, err := e.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("with one", Notice{NoticePending, 3, "goes back to revision 1 in 1m0s"}, Notice{Kind: NoticeConfirmed, Revision: 3})
	s.apply(e, confA, ApplyOptions{Message: "as before"})
	want("a plain apply", Notice{NoticeApplied, 4, "as before"})
	delete(s.m.state["host"], "mtu")
	for range 2 {
		if err := e.Reconcile(t.Context(), Drift); err != nil {
			t.Fatal(err)
		}
	}
	want("what somebody else took away", Notice{NoticeRepaired, 4, "host: set mtu=1500"})
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("down", Notice{Kind: NoticeDown})
}

// An apply tells what was mended before it came, once, and what it mends itself.
func TestAnApplyOfTheSameFileTellsWhatWasMended(t *testing.T) {
	s, e := running(t, confA)
	tell := func(what string, r Result, unchanged bool, want *Mended) {
		t.Helper()
		if diff := cmp.Diff(want, r.Mended); diff != "" || r.Unchanged != unchanged {
			t.Errorf("%s: unchanged %v, mended (-want +got):\n%s", what, r.Unchanged, diff)
		}
	}
	tell("a machine that nobody touched", s.apply(e, confA, ApplyOptions{}), true, nil)
	delete(s.m.state["host"], "mtu")
	if err := e.Reconcile(t.Context(), Drift); err != nil {
		t.Fatal(err)
	}
	was := &Mended{At: s.clock.Now(), Why: "drift", Steps: []string{"host: set mtu=1500"}}
	s.clock.advance(time.Minute)
	tell("after a repair", s.apply(e, confA, ApplyOptions{}), true, was)
	tell("the second time", s.apply(e, confA, ApplyOptions{}), true, nil)
	delete(s.m.state["host"], "mtu")
	tell("before a repair", s.apply(e, confA, ApplyOptions{}), false, &Mended{At: s.clock.Now(), Why: "apply", Steps: []string{"host: set mtu=1500"}})
	tell("and then", s.apply(e, confA, ApplyOptions{}), true, nil)
	for range 2 {
		delete(s.m.state["host"], "mtu")
		if err := e.Reconcile(t.Context(), Drift); err != nil {
			t.Fatal(err)
		}
	}
	tell("after two repairs", s.apply(e, confA, ApplyOptions{}), true, &Mended{At: s.clock.Now(), Why: "drift", Steps: []string{"host: set mtu=1500", "host: set mtu=1500"}})
	delete(s.m.state["host"], "mtu")
	if err := e.Reconcile(t.Context(), "a process has ended"); err != nil {
		t.Fatal(err)
	}
	s.holds(confA)
	tell("what nobody else did", s.apply(e, confA, ApplyOptions{}), true, nil)
	delete(s.m.state["host"], "mtu")
	if err := e.Recompile(t.Context(), "eth0 came up"); err != nil {
		t.Fatal(err)
	}
	tell("another file", s.apply(e, confB, ApplyOptions{}), false, nil)
	tell("and that again", s.apply(e, confB, ApplyOptions{}), true, nil)
}
