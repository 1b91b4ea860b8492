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
		if err := e.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want("what somebody else took away", Notice{NoticeRepaired, 4, "host: set mtu=1500"})
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("down", Notice{Kind: NoticeDown})
}
