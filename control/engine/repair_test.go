package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/config"
)

func TestRecompileBringsNewFactsInWithoutARevision(t *testing.T) {
	s, e := running(t, "host.a=1\nxdp.kernel=$fact")
	s.fact = "6.18"
	if err := e.Recompile(t.Context(), "eth0 came up"); err != nil {
		t.Fatal(err)
	}
	s.holds("host.a=1\nxdp.kernel=6.18")
	if ops := s.m.take(); !reflect.DeepEqual(ops, []string{"xdp change kernel=6.18"}) {
		t.Errorf("did %q", ops)
	}
	s.live(e, 1, 0)
	if n := len(e.History()); n != 1 {
		t.Errorf("%d revisions", n)
	}
}

func TestARecompileThatFailsKeepsTheFormBeforeAndIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(s *site)
		reason string
	}{
		{"at compiling", func(s *site) { s.fact = "" }, "CompileFailed"},
		{"at a step", func(s *site) { s.fact = "6.18"; s.failAt(2, 2, true) }, "RecompileFailed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, e := running(t, "tc.kernel=$fact\nxdp.kernel=$fact")
			c.spoil(s)
			if err := e.Recompile(t.Context(), "eth0 came up"); !errors.Is(err, ErrDegraded) {
				t.Fatal(err)
			}
			s.holds("tc.kernel=6.12\nxdp.kernel=6.12")
			if d := s.condition(e, ConditionDegraded, True); d.Reason != c.reason || !strings.Contains(d.Message, "eth0 came up") {
				t.Errorf("condition %+v", d)
			}
			s.heal()
			s.fact = "6.18"
			s.clock.advance(time.Second)
			e.tick(t.Context())
			s.holds("tc.kernel=6.18\nxdp.kernel=6.18")
			s.condition(e, ConditionDegraded, False)
		})
	}
}

func TestAFailedApplyDoesNotForgetThatARecompileIsDue(t *testing.T) {
	s, e := running(t, "xdp.kernel=$fact")
	s.fact = ""
	if err := e.Recompile(t.Context(), "eth0 went"); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.failAt(1, 1, false)
	if _, err := e.Apply(t.Context(), s.candidate(confC), ApplyOptions{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.heal()
	s.condition(e, ConditionDegraded, True)
	s.fact = "6.18"
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds("xdp.kernel=6.18")
}

func TestReconcileRepairsDrift(t *testing.T) {
	s, e := running(t, confA)
	s.m.state["xdp"]["gen"] = "99"
	s.m.state["bgp"]["stray"] = "1"
	delete(s.m.state["host"], "mtu")
	if err := e.Reconcile(t.Context(), Drift); err != nil {
		t.Fatal(err)
	}
	s.holds(confA)
	want := []string{"bgp del stray", "host set mtu=1500", "xdp change gen=1"}
	if ops := s.m.take(); !reflect.DeepEqual(ops, want) {
		t.Errorf("did %q, want %q", ops, want)
	}
	if n := len(e.History()); n != 1 {
		t.Errorf("%d revisions", n)
	}
	if got := repairText(make([]Step, 7)); !strings.HasSuffix(got, "; and 2 more") {
		t.Errorf("seven steps are told as %q", got)
	}
}

func TestReconcileAndRecompileLeaveAMachineWithoutARevisionAlone(t *testing.T) {
	s := newSite(t)
	s.m.state["xdp"] = map[string]string{"gen": "of a lost state directory"}
	e := s.start()
	if err := errors.Join(e.Reconcile(t.Context(), Drift), e.Recompile(t.Context(), "eth0 came up")); err != nil {
		t.Fatal(err)
	}
	if ops := s.m.take(); ops != nil {
		t.Errorf("did %q", ops)
	}
}

func TestASubsystemThatDoesNotKeepWhatItWasToldIsReportedOnce(t *testing.T) {
	s, e := running(t, confA)
	ops := 0
	s.m.after = func(sub string, op fakeOp) error {
		ops++
		if sub == "xdp" {
			s.m.state["xdp"]["gen"] = "0"
		}
		return nil
	}
	r := s.apply(e, confB, ApplyOptions{})
	c := s.condition(e, ConditionInSync, False)
	if c.Reason != "Drift" || c.Message != "xdp: 1 step left, the first: change gen=2" {
		t.Errorf("condition %+v", c)
	}
	if ops != len(r.Plan.Steps) {
		t.Errorf("%d ops for %d steps", ops, len(r.Plan.Steps))
	}
	s.live(e, 2, 0)
}

func TestAConditionRemembersSinceWhen(t *testing.T) {
	s, e := running(t, confA)
	at := s.condition(e, ConditionInSync, True).Since
	s.clock.advance(minute)
	s.apply(e, confB, ApplyOptions{})
	if c := s.condition(e, ConditionInSync, True); c.Since != at {
		t.Errorf("since %s, was %s", c.Since, at)
	}
}

func TestDownTakesEverythingAwayInOrderAndTheNextStartBringsItBack(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	s.m.take()
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bgp del net2", "bgp del tor-a", "xdp del gen", "xdp del new", "tc del gen", "tc del new",
		"wireguard del fra1", "wireguard del par1", "host del mtu", "host del new",
	}
	if ops := s.m.take(); !reflect.DeepEqual(ops, want) {
		t.Errorf("did %q\nwant %q", ops, want)
	}
	if st := e.Status(); !st.Down || st.Applied || st.Pending != nil {
		t.Errorf("status %+v", st)
	}
	s.clock.advance(time.Hour)
	e.tick(t.Context())
	if err := errors.Join(e.Reconcile(t.Context(), Drift), e.Recompile(t.Context(), "eth0 went")); err != nil {
		t.Fatal(err)
	}
	s.failAt(3, 3, true)
	if _, err := e.Apply(t.Context(), s.candidate(confC+"\nxdp.a=1"), ApplyOptions{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.heal()
	s.holds("")
	s.live(s.start(), 1, 0)
	s.holds(confA)
}

func TestAnApplyBringsATakenDownMachineUp(t *testing.T) {
	s, e := running(t, confA)
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.apply(e, confA, ApplyOptions{})
	s.holds(confA)
	if e.Status().Down {
		t.Error("still down")
	}
}

func TestAStartThatFailsIsDegradedAndTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(s *site)
		mend  func(s *site)
	}{
		{"at a step", func(s *site) { s.failAt(2, 1<<30, false) }, func(s *site) { s.heal() }},
		{"at compiling", func(s *site) { s.fact = "" }, func(s *site) { s.fact = "6.12" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := confA + "\nhost.kernel=$fact"
			s, _ := running(t, text)
			s.clock.reboot()
			s.m.state = map[string]map[string]string{}
			c.spoil(s)
			e := s.engine()
			if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) {
				t.Fatal(err)
			}
			if st := e.Status(); st.Revision != 1 || st.Applied {
				t.Errorf("status %+v", st)
			}
			if _, err := e.Apply(t.Context(), s.candidate("host.kernel=$fact\nxdp.a=1"), ApplyOptions{}); err == nil {
				t.Error("an apply came through")
			}
			var got []Notice
			e.opts.Notify = func(n Notice) {
				if _, _, live := e.Current(); live == nil {
					t.Error("a notice of health without a live state")
				}
				got = append(got, n)
			}
			c.mend(s)
			for range 2 { // told once
				s.clock.advance(minute)
				e.tick(t.Context())
			}
			s.holds(confA + "\nhost.kernel=6.12")
			if diff := cmp.Diff([]Notice{{Kind: NoticeHealthy, Revision: 1}}, got); diff != "" {
				t.Error(diff)
			}
			s.live(e, 1, 0)
		})
	}
}

func TestARevisionThatNoLongerParsesLeavesTheMachineAndCanBeReplaced(t *testing.T) {
	s, _ := running(t, confA)
	store, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(store)
	o.Parse = func(string, []byte, func(string) ([]byte, error)) (*config.Config, error) {
		return nil, config.Errors{{Pos: config.Pos{File: "edge.yaml", Line: 12, Column: 3}, Path: "host.mtu", Msg: "unknown key"}, {Msg: "another"}}
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	err = e.Start(t.Context())
	if !errors.Is(err, ErrDegraded) || !strings.Contains(err.Error(), "revision 1 does not parse with this version of sluice (mend what `sluice show config 1` prints, and apply it): edge.yaml:12:3: host.mtu: unknown key (and 1 more)") {
		t.Fatal(err)
	}
	if c, _, err := e.Stored(t.Context(), 1); err != nil || string(c.Bytes) != confA {
		t.Errorf("what is to be mended: %q, %v", c.Bytes, err)
	}
	if _, err := e.Rollback(t.Context(), 1, ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "edge.yaml:12:3") {
		t.Errorf("a rollback to it: %v", err)
	}
	s.holds(confA)
	s.apply(e, confB, ApplyOptions{})
	s.holds(confB)
	s.live(e, 2, 0)
	s.condition(e, ConditionDegraded, False)
}

func TestStatusAndHistoryDoNotWaitForAnApply(t *testing.T) {
	s, e := running(t, confA)
	looked := 0
	s.m.before = func(string, fakeOp) error {
		if st := e.Status(); st.Revision != 1 || len(e.History()) != 1 {
			return fmt.Errorf("saw %+v", st)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := e.Plan(ctx, s.candidate(confC)); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a plan in mid-apply: %w", err)
		}
		looked++
		return nil
	}
	s.apply(e, confB, ApplyOptions{})
	if looked == 0 {
		t.Error("never looked")
	}
}

func TestAnEngineWithoutItsPartsIsRefused(t *testing.T) {
	s := newSite(t)
	for name, spoil := range map[string]func(*Options){
		"nothing at all":       func(o *Options) { *o = Options{} },
		"no checker":           func(o *Options) { o.Checker = nil },
		"an unknown announcer": func(o *Options) { o.Announcer = "isis" },
		"an unknown carrier":   func(o *Options) { o.Carriers = []string{"isis/routes"} },
		"a subsystem twice":    func(o *Options) { o.Subsystems = append(o.Subsystems, o.Subsystems[0]) },
	} {
		store, err := OpenStore(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		o := s.options(store)
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: made an engine", name)
		}
	}
}

// TestIDsThatGoToAnotherRuleAreToldBeforeTheyCount: a rule that keeps its id, or comes back to it, counts on.
func TestIDsThatGoToAnotherRuleAreToldBeforeTheyCount(t *testing.T) {
	s, e := running(t, "xdp.a=1\nxdp.b=1")
	var told [][]uint32
	e.opts.NewRuleIDs = func(ids []uint32) error {
		told = append(told, ids)
		return errInjected // a warning, no more
	}
	s.apply(e, "xdp.c=1\nxdp.b=1", ApplyOptions{}) // c is 3
	s.apply(e, "xdp.a=1\nxdp.b=1", ApplyOptions{}) // a comes back to 1
	s.clock.advance(10 * minute)
	s.apply(e, "xdp.e=1\nxdp.b=1\nxdp.f=1", ApplyOptions{}) // c's id is free again
	_, _, d := e.Current()
	if want := [][]uint32{{3}, {d.RuleIDs["xdp.e"], d.RuleIDs["xdp.f"]}}; len(told) != 2 || !reflect.DeepEqual(told, want) || d.RuleIDs["xdp.e"] != 3 {
		t.Errorf("told %v, ids %v", told, d.RuleIDs)
	}
}

func TestRuleIDsStayWithTheirRulesAndAreNotReusedWithinTheGrace(t *testing.T) {
	s, e := running(t, "xdp.a=1\nxdp.b=1")
	ids := func(e *Engine) map[string]uint32 { _, _, d := e.Current(); return d.RuleIDs }
	expect := func(when string, want map[string]uint32) {
		t.Helper()
		if have := ids(e); !reflect.DeepEqual(have, want) {
			t.Fatalf("%s: ids %v, want %v", when, have, want)
		}
	}
	expect("at first", map[string]uint32{"xdp.a": 1, "xdp.b": 2})
	s.apply(e, "xdp.c=1\nxdp.b=1", ApplyOptions{})
	expect("a new rule in front", map[string]uint32{"xdp.b": 2, "xdp.c": 3})
	e = s.start()
	expect("after a restart", map[string]uint32{"xdp.b": 2, "xdp.c": 3})
	s.apply(e, "xdp.d=1\nxdp.b=1\nxdp.a=1", ApplyOptions{})
	expect("a rule came back within the grace", map[string]uint32{"xdp.a": 1, "xdp.b": 2, "xdp.d": 4})
	s.clock.advance(10 * minute)
	s.apply(e, "xdp.e=1\nxdp.b=1\nxdp.a=1", ApplyOptions{})
	expect("the grace of c is over", map[string]uint32{"xdp.a": 1, "xdp.b": 2, "xdp.e": 3})
	s.failAt(1, 1, true)
	if _, err := e.Apply(t.Context(), s.candidate("xdp.f=1"), ApplyOptions{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.heal()
	e = s.start()
	expect("after an apply that failed", map[string]uint32{"xdp.a": 1, "xdp.b": 2, "xdp.e": 3})
	rt := e.ids.runtime(s.clock.Now())
	if want := map[uint32]bool{4: true, 5: true}; !reflect.DeepEqual(rt.Retired, want) {
		t.Errorf("retired %v, want %v", rt.Retired, want)
	}
	if want := map[string]uint32{"xdp.a": 1, "xdp.b": 2, "xdp.e": 3}; !reflect.DeepEqual(rt.RuleIDs, want) {
		t.Errorf("known %v, want %v", rt.RuleIDs, want)
	}
	if want := map[string]uint32{"xdp.d": 4, "xdp.f": 5}; !reflect.DeepEqual(rt.Claims, want) {
		t.Errorf("claims %v, want %v", rt.Claims, want)
	}
	if rt := (ruleIDs{}).runtime(time.Time{}); len(rt.RuleIDs)+len(rt.Retired)+len(rt.Claims)+len(rt.Watched) > 0 {
		t.Errorf("of nothing: %v", rt)
	}
}
