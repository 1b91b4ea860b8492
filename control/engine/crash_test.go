package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// crasher ends a pretended process at one chosen point: ahead of a write to the disk (or in the middle of one), ahead of
// an op, or after its effect. What the process does while it unwinds is stopped, too.
type crasher struct {
	armed     bool
	at, count int
}

type crashed struct{}

func (c *crasher) point() {
	if !c.armed {
		return
	}
	if c.count++; c.count >= c.at {
		panic(crashed{})
	}
}

func (c *crasher) use(s *site) {
	s.disk.before = func(op, path string) error {
		if c.armed && op == "write" && c.count+1 == c.at {
			if err := os.WriteFile(path, []byte(`{"schema": 1, "num`), 0o600); err != nil {
				return err
			}
		}
		if c.armed && op == "extend" && c.count+1 == c.at {
			whole, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path, append(whole, `{"base":"`...), 0o600); err != nil {
				return err
			}
		}
		c.point()
		return nil
	}
	hook := func(string, fakeOp) error { c.point(); return nil }
	s.m.before, s.m.after = hook, hook
}

// run runs f with a crash at point n; false: f ended before.
func (c *crasher) run(n int, f func()) (died bool) {
	c.armed, c.at, c.count = true, n, 0
	defer func() {
		c.armed = false
		if r := recover(); r != nil {
			if _, ours := r.(crashed); !ours {
				panic(r)
			}
			died = true
		}
	}()
	f()
	return false
}

// A life is what a daemon goes through before it dies. It calls won when an operation returned that made a text the
// truth: from then on nothing may bring back another. With two texts the next operation may have come through or not.
type life struct {
	name string
	live func(s *site, e *Engine, won func(texts ...string))
}

func lives(t *testing.T) []life {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return []life{
		{"apply", func(s *site, e *Engine, won func(...string)) {
			s.apply(e, confB, ApplyOptions{})
			won(confB)
		}},
		{"apply and confirm", func(s *site, e *Engine, won func(...string)) {
			s.apply(e, confB, ApplyOptions{Confirm: minute})
			_, err := e.Confirm(t.Context())
			must(err)
			won(confB)
		}},
		{"apply and no confirm", func(s *site, e *Engine, won func(...string)) {
			s.apply(e, confB, ApplyOptions{Confirm: minute})
			s.clock.advance(minute)
			e.tick(t.Context())
			won(confA)
		}},
		{"apply twice and confirm", func(s *site, e *Engine, won func(...string)) {
			s.apply(e, confB, ApplyOptions{Confirm: minute})
			s.apply(e, confC, ApplyOptions{Confirm: minute})
			_, err := e.Confirm(t.Context())
			must(err)
			won(confC)
		}},
		{"apply and rollback", func(s *site, e *Engine, won func(...string)) {
			s.apply(e, confB, ApplyOptions{})
			won(confB, confA)
			_, err := e.Rollback(t.Context(), 1, ApplyOptions{})
			must(err)
			won(confA)
		}},
	}
}

// survivors asserts what must hold after any crash, and returns the text that the machine holds.
func (s *site) survivors(e *Engine, truth []string) string {
	s.t.Helper()
	st := e.Status()
	_, c, _ := e.Current()
	text := string(c.Bytes)
	s.holds(text)
	pending := 0
	if st.Pending != nil {
		pending = st.Pending.Revision
		if st.Pending.Remaining <= 0 || st.Pending.Remaining > 60 {
			s.t.Errorf("%v seconds remain", st.Pending.Remaining)
		}
	}
	s.live(e, st.Revision, pending)
	if pending == 0 && truth != nil && !slices.Contains(truth, text) {
		s.t.Errorf("the machine holds\n%s\nafter this was made the truth:\n%q", text, truth)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "revisions"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, x := range entries {
		if strings.HasPrefix(x.Name(), ".") || strings.HasPrefix(x.Name(), "torn") {
			s.t.Errorf("%s was left over", x.Name())
		}
	}
	return text
}

func TestKillMinusNineAtAnyPoint(t *testing.T) {
	t.Parallel()
	for _, l := range lives(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			n := 1
			for ; ; n++ {
				s, e := running(t, confA)
				var c crasher
				c.use(s)
				e = s.start()
				var truth []string
				if !c.run(n, func() { l.live(s, e, func(texts ...string) { truth = texts }) }) {
					break
				}
				s.m.take()
				e = s.start()
				text := s.survivors(e, truth)
				e = s.start()
				if again := s.survivors(e, truth); again != text {
					t.Errorf("point %d: a second start changed the machine from\n%s\nto\n%s", n, text, again)
				}
				if e.Status().Pending == nil {
					continue
				}
				// The timer went on: what is pending goes back when its time is over.
				s.clock.advance(minute)
				e.tick(t.Context())
				s.holds(confA)
				s.live(s.start(), 1, 0)
			}
			if n < 40 {
				t.Errorf("only %d points were tried", n)
			}
		})
	}
}

func TestAKillWhileGoingBackAfterAKill(t *testing.T) {
	t.Parallel()
	n := 1
	for ; ; n++ {
		s, e := running(t, confA)
		var c crasher
		c.use(s)
		e = s.start()
		c.run(25, func() { s.apply(e, confB, ApplyOptions{Confirm: minute}) })
		s.clock.advance(minute)
		if !c.run(n, func() { s.start() }) {
			break
		}
		s.live(s.start(), 1, 0)
		s.holds(confA)
	}
	if n < 5 {
		t.Errorf("only %d points were tried", n)
	}
}

func TestAGoingBackThatBeganIsNotForgottenByAKill(t *testing.T) {
	t.Parallel()
	n, moved := 1, 0
	for ; ; n++ {
		s, e := running(t, confA)
		var c crasher
		c.use(s)
		e = s.start()
		s.apply(e, confChecked, ApplyOptions{Confirm: time.Hour})
		s.check.set("tor-a is down")
		e.tick(t.Context())
		s.clock.advance(10 * time.Second)
		s.m.take()
		if !c.run(n, func() { e.tick(t.Context()) }) {
			break
		}
		began := len(s.m.take()) > 0
		e = s.start()
		if began {
			moved++
			s.holds(confA)
			s.live(e, 1, 0)
		}
	}
	if moved < 20 {
		t.Errorf("only %d points were tried after the first step back", moved)
	}
}

func TestARebootAtAnyPointBringsTheConfirmedRevisionBackFirst(t *testing.T) {
	t.Parallel()
	for _, l := range lives(t) {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n += 3 {
				s, e := running(t, confA)
				var c crasher
				c.use(s)
				e = s.start()
				var truth []string
				if !c.run(n, func() { l.live(s, e, func(texts ...string) { truth = texts }) }) {
					break
				}
				s.clock.reboot()
				s.m.state = map[string]map[string]string{}
				s.m.take()
				e = s.start()
				if e.Status().Pending != nil {
					t.Fatalf("point %d: pending after a reboot", n)
				}
				text := s.survivors(e, truth)
				for _, op := range s.m.take() {
					if sub, rest, _ := strings.Cut(op, " set "); !strings.Contains(text, sub+"."+rest) {
						t.Errorf("point %d: %q was done on the way to\n%s", n, op, text)
					}
				}
			}
		})
	}
}

func TestAFirstStartThatIsKilledIsMadeAgain(t *testing.T) {
	t.Parallel()
	n := 1
	for ; ; n++ {
		s := newSite(t)
		s.file = confA
		var c crasher
		c.use(s)
		if !c.run(n, func() { s.start() }) {
			break
		}
		e := s.start()
		s.survivors(e, []string{confA})
	}
	if n < 30 {
		t.Errorf("only %d points were tried", n)
	}
}

func TestAFirstStartThatIsKilledAndThenCannotCompileLeavesNothing(t *testing.T) {
	s := newSite(t)
	s.file = confA + "\nhost.kernel=$fact"
	var c crasher
	c.use(s)
	if !c.run(30, func() { s.start() }) || s.m.String() == "" {
		t.Fatal("the first start was not killed in its middle")
	}
	s.fact = ""
	e := s.engine()
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "host.kernel has no value") {
		t.Errorf("start: %v", err)
	}
	s.holds("")
	s.live(e, 0, 0)
}

func TestARebootWhilePendingWithoutABaseLeavesNothingAndDoesNotTakeTheFileAgain(t *testing.T) {
	for _, how := range []string{"reboot", "deadline while the daemon was down"} {
		t.Run(how, func(t *testing.T) {
			s := newSite(t)
			e := s.start()
			s.apply(e, confA, ApplyOptions{Confirm: minute})
			s.file = confA
			if how == "reboot" {
				s.clock.reboot()
			} else {
				s.clock.advance(minute)
			}
			e = s.start()
			s.holds("")
			s.live(e, 0, 0)
			if st := e.Status(); !strings.Contains(st.LastError, "revision 1, which was reverted") || !st.FileDiffers {
				t.Errorf("status %+v", st)
			}
			s.apply(e, confA, ApplyOptions{})
			s.live(e, 2, 0)
		})
	}
}

func TestTheTimerGoesOnOverARestart(t *testing.T) {
	for _, c := range []struct {
		down    time.Duration
		pending bool
	}{{0, true}, {59 * time.Second, true}, {minute, false}, {time.Hour, false}} {
		t.Run(fmt.Sprint(c.down), func(t *testing.T) {
			s, e := running(t, confA)
			s.apply(e, confB, ApplyOptions{Confirm: minute})
			s.clock.advance(c.down)
			s.m.take()
			e = s.start()
			if !c.pending {
				s.holds(confA)
				s.live(e, 1, 0)
				return
			}
			s.holds(confB)
			s.live(e, 2, 2)
			if ops := s.m.take(); ops != nil {
				t.Errorf("a start in mid-pending did %q", ops)
			}
			if p := e.Status().Pending; p.Remaining != (minute - c.down).Seconds() {
				t.Errorf("%v s remain", p.Remaining)
			}
			if _, err := e.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.clock.reboot()
			s.live(s.start(), 2, 0)
			s.holds(confB)
		})
	}
}
