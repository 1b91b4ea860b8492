package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// refuse makes steps fail, named as the machine logs them, however often they are tried.
func (s *site) refuse(err error, steps ...string) {
	s.m.before = func(sub string, op fakeOp) error {
		for _, step := range steps {
			if step == sub+" "+op.String() {
				return err
			}
		}
		return nil
	}
}

// booted is the site of a machine that was confirmed at text, and lost all but left of it.
func booted(t *testing.T, text, left string) *site {
	t.Helper()
	s, _ := running(t, text)
	s.clock.reboot()
	s.m.state = map[string]map[string]string{}
	for line := range strings.Lines(left) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		sub, k, _ := strings.Cut(key, ".")
		s.m.state[sub] = map[string]string{k: value}
	}
	return s
}

const whole = `wireguard.a=1
wireguard.b=1
wireguard.lone1=1
wireguard.lone2=1
host.a=1
host.forwarding=1
host.lone=1
tc.a=1
xdp.a=1
bgp.a=1`

// Of the machine before there is something of two subsystems to take away, and something to withdraw.
func TestAStepThatFailsKeepsBackOnlyWhatBuildsOnIt(t *testing.T) {
	t.Parallel()
	const left = "wireguard.old=1\nxdp.old=1\nbgp.old=1"
	for _, c := range []struct {
		name     string
		refused  string
		err      error
		keptBack []string // beside the step itself
	}{
		{"a route of a tunnel", "wireguard set lone1=1", errInjected, nil},
		{"a tunnel", "wireguard set a=1", errInjected, []string{"wireguard.b"}},
		{"a subsystem that does not answer", "wireguard set a=1", context.DeadlineExceeded, []string{"wireguard.b", "wireguard.lone1", "wireguard.lone2"}},
		{"a setting of the host", "host set lone=1", errInjected, nil},
		{"what bounds forwarding", "host set a=1", errInjected, []string{"host.forwarding", "bgp.a"}},
		{"forwarding", "host set forwarding=1", errInjected, []string{"bgp.a"}},
		{"delivery", "tc set a=1", errInjected, []string{"bgp.a"}},
		{"the policy", "xdp set a=1", errInjected, []string{"bgp.a"}},
		{"an announcement", "bgp set a=1", errInjected, nil},
		{"a withdrawal", "bgp del old", errInjected, []string{"bgp.a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := booted(t, whole, left)
			s.refuse(c.err, c.refused)
			e := s.engine()
			if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) || !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			want := wanted(whole + "\nwireguard.old=1\nxdp.old=1")
			sub, op, _ := strings.Cut(c.refused, " ")
			if op == "del old" {
				want = wanted(whole + "\n" + left)
			}
			for _, key := range append(c.keptBack, sub+"."+strings.TrimSuffix(strings.TrimPrefix(op, "set "), "=1")) {
				want = strings.ReplaceAll("\n"+want+"\n", "\n"+key+"=1\n", "\n")
				want = strings.Trim(want, "\n")
			}
			if have := s.m.String(); have != want {
				t.Errorf("the machine holds\n%s\nwant\n%s", have, want)
			}
			d := s.condition(e, ConditionDegraded, True)
			if n := strings.Count(d.Message, sub+": "+op); n != 1 || !strings.Contains(d.Message, fmt.Sprintf("%d other steps wait for that", len(c.keptBack)+2)) {
				t.Errorf("told %d times: %s", n, d.Message)
			}
			s.condition(e, ConditionInSync, False)
			if st := e.Status(); st.Applied {
				t.Errorf("status %+v", st)
			}
			s.heal()
			s.clock.advance(time.Second)
			e.tick(t.Context())
			s.holds(whole)
			s.condition(e, ConditionDegraded, False)
			s.condition(e, ConditionInSync, True)
			s.live(e, 1, 0)
		})
	}
}

func TestNothingIsAnnouncedByAStartWhoseDataPathFailsAtAnyStep(t *testing.T) {
	for n := range 10 {
		s := booted(t, whole, "")
		s.failAt(n+1, n+1, false)
		s.m.after = s.covered("tc", "xdp")
		if err := s.engine().Start(t.Context()); !errors.Is(err, ErrDegraded) {
			t.Fatalf("step %d: %v", n+1, err)
		}
	}
}

func TestEveryFailureOfAStartIsTold(t *testing.T) {
	s := booted(t, whole, "")
	s.refuse(errInjected, "wireguard set lone1=1", "wireguard set lone2=1", "tc set a=1")
	e := s.engine()
	if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	const want = "applying revision 1 (start): step 6 of 10, wireguard: set lone1=1: injected; step 7 of 10, wireguard: set lone2=1: injected; " +
		"step 8 of 10, tc: set a=1: injected; 1 other step waits for that"
	if c := s.condition(e, ConditionDegraded, True); c.Message != want {
		t.Errorf("told\n%s\nwant\n%s", c.Message, want)
	}
}

var errGone = errors.New("no interface")

// A tunnel cannot be made, and what is done to its link fails behind that.
func TestWhatIsAbsentKeepsNothingBack(t *testing.T) {
	s := booted(t, whole, "")
	s.m.before = func(sub string, op fakeOp) error {
		switch sub + " " + op.String() {
		case "wireguard set lone1=1":
			return errInjected
		case "tc set a=1", "xdp set a=1":
			return errGone
		}
		return nil
	}
	store, err := openStore(s.dir, s.disk)
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(store)
	o.Absent = func(err error) bool { return errors.Is(err, errGone) }
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.holds("wireguard.a=1\nwireguard.b=1\nwireguard.lone2=1\nhost.a=1\nhost.forwarding=1\nhost.lone=1\nbgp.a=1")
	if c := s.condition(e, ConditionDegraded, True); !strings.HasSuffix(c.Message, "set lone1=1: injected; 2 other steps wait for that") {
		t.Errorf("told %s", c.Message)
	}
	s.heal()
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds(whole)
}

func TestNewFactsComeInBesideWhatCannotBeObserved(t *testing.T) {
	s, e := running(t, "wireguard.lone=1\nxdp.kernel=$fact")
	s.m.blind, s.fact = "wireguard", "6.18"
	if err := e.Recompile(t.Context(), "eth0 came up"); !errors.Is(err, ErrDegraded) || strings.Count(err.Error(), "observing wireguard") != 1 {
		t.Fatal(err)
	}
	s.holds("wireguard.lone=1\nxdp.kernel=6.18")
}

func TestASubsystemThatCannotBeObservedKeepsNoOtherBack(t *testing.T) {
	for _, c := range []struct{ blind, kept string }{{"wireguard", ""}, {"xdp", "bgp"}, {"host", "bgp"}} {
		s := booted(t, whole, "")
		s.m.blind = c.blind
		e := s.engine()
		if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) || !strings.Contains(err.Error(), "observing "+c.blind) {
			t.Fatal(err)
		}
		want := ""
		for line := range strings.Lines(whole) {
			if sub, _, _ := strings.Cut(line, "."); sub != c.blind && sub != c.kept {
				want += line
			}
		}
		s.holds(want)
		s.m.blind = ""
		s.clock.advance(time.Second)
		e.tick(t.Context())
		s.holds(whole)
	}
}

// An Op that says nothing of what it builds on builds on all before it in its subsystem.
func TestAStepThatSaysNothingIsKeptBackByAnyOfItsSubsystem(t *testing.T) {
	_, e := running(t, confA)
	b := bringing{e: e, Failures: Failures{errs: []error{errInjected}}, lost: losses{"wireguard": true}, silent: map[string]bool{}}
	for sub, may := range map[string]bool{"wireguard": false, "xdp": true} {
		if b.may(Step{Subsystem: sub}) != may {
			t.Errorf("%s: %v", sub, !may)
		}
	}
}

// foreign has somebody else take the place of a route, and take away the policy.
func foreign(t *testing.T) (*site, *Engine) {
	t.Helper()
	s, e := running(t, "wireguard.lone=1\nxdp.kernel=$fact\nbgp.a=1")
	delete(s.m.state["wireguard"], "lone")
	delete(s.m.state["xdp"], "kernel")
	s.refuse(errInjected, "wireguard set lone=1")
	return s, e
}

func TestDriftIsRepairedBesideWhatCannotBe(t *testing.T) {
	s, e := foreign(t)
	var told []string
	e.opts.Notify = func(n Notice) { told = append(told, string(n.Kind)+" "+n.Text) }
	if err := e.Reconcile(t.Context(), Drift); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.holds("xdp.kernel=6.12\nbgp.a=1")
	s.condition(e, ConditionInSync, False)
	const failed = "degraded bringing the machine to revision 1: step 1 of 2, wireguard: set lone=1: injected"
	if want := []string{"repaired xdp: set kernel=6.12", failed}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestWhatFailsInTheFormBeforeAsWellKeepsNoNewFactsOut(t *testing.T) {
	s, e := foreign(t)
	s.fact = "6.18"
	if err := e.Recompile(t.Context(), "eth0 came up"); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.holds("xdp.kernel=6.18\nbgp.a=1")
	if c := s.condition(e, ConditionDegraded, True); c.Reason != "RepairFailed" || strings.Count(c.Message, "injected") != 1 {
		t.Errorf("condition %+v", c)
	}
	s.heal()
	s.clock.advance(time.Second)
	e.tick(t.Context())
	s.holds("wireguard.lone=1\nxdp.kernel=6.18\nbgp.a=1")
}

func TestAnApplyBesideWhatCannotBeRepairedIsRefusedAndSaysItOnce(t *testing.T) {
	s, e := foreign(t)
	_, err := e.Apply(t.Context(), s.candidate("wireguard.lone=1\nxdp.kernel=$fact\nbgp.b=1"), ApplyOptions{})
	if !errors.Is(err, ErrDegraded) || strings.Count(err.Error(), "injected") != 1 {
		t.Fatal(err)
	}
	s.holds("xdp.kernel=6.12\nbgp.a=1")
	s.live(e, 1, 0)
	c := s.condition(e, ConditionDegraded, True)
	if c.Reason != "RepairFailed" || !strings.HasSuffix(c.Message, "injected; the way back to revision 1 fails there, too") {
		t.Errorf("condition %+v", c)
	}
	s.condition(e, ConditionInSync, False)
}

func TestNothingIsInSyncWhileACompilationIsDue(t *testing.T) {
	s, e := running(t, "xdp.kernel=$fact")
	s.fact = ""
	if err := e.Recompile(t.Context(), "eth0 went"); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	s.condition(e, ConditionInSync, False)
	s.failAt(1, 1, false)
	if _, err := e.Apply(t.Context(), s.candidate(confC), ApplyOptions{}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	s.condition(e, ConditionDegraded, True)
	s.condition(e, ConditionInSync, False)
}
