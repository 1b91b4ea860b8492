package engine

import (
	"errors"
	"slices"
	"testing"
)

// covered fails where something is announced without a data path: what bgp holds, those under it hold at every moment.
func (s *site) covered(below ...string) func(string, fakeOp) error {
	return func(sub string, op fakeOp) error {
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		for key := range s.m.state["bgp"] {
			for _, under := range below {
				if _, there := s.m.state[under][key]; !there {
					s.t.Errorf("behind %s %s, %s is announced and %s has nothing of it", sub, op, key, under)
				}
			}
		}
		return nil
	}
}

// TestNothingIsAnnouncedThatTheDataPathDoesNotHold goes every way that there is: a first start, applies, one that fails at each of its
// steps and goes back, a rollback, and down.
func TestNothingIsAnnouncedThatTheDataPathDoesNotHold(t *testing.T) {
	const web, mail = "host.web=1\ntc.web=1\nxdp.web=1\nbgp.web=1\n", "host.mail=1\ntc.mail=1\nxdp.mail=1\nbgp.mail=1\n"
	s := newSite(t)
	s.m.after = s.covered("host", "tc", "xdp")
	s.file = web
	e := s.start()
	s.apply(e, web+mail, ApplyOptions{})
	steps := len(s.apply(e, mail, ApplyOptions{}).Plan.Steps)
	if log := s.m.take(); !slices.Contains(log, "bgp del web") || steps != 4 {
		t.Fatalf("%d steps; did %q", steps, log)
	}
	for n := range 8 { // of web in place of mail
		count := 0
		s.m.before = func(string, fakeOp) error {
			if count++; count == n+1 {
				return errInjected
			}
			return nil
		}
		if _, err := e.Apply(t.Context(), s.candidate(web), ApplyOptions{}); !errors.Is(err, errInjected) {
			t.Fatalf("step %d: %v", n, err)
		}
		s.m.before = nil
		s.holds(mail)
	}
	if _, err := e.Rollback(t.Context(), 1, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds(web)
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.holds("")
	s.start()
	s.holds(web)
}
