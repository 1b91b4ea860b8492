package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// numbered is a configuration that no other number gives.
func numbered(n int) string { return fmt.Sprintf("%s\n# %d", confA, n) }

// kept are the names in the directory of revisions.
func (s *site) kept() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "revisions"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestOldRevisionsAreNotKept(t *testing.T) {
	s, e := running(t, confA)
	for n := 2; n <= keptRevisions+10; n++ {
		s.apply(e, numbered(n), ApplyOptions{})
	}
	list := e.History()
	if len(list) != keptRevisions || list[0].Number != 11 || len(s.kept()) != keptRevisions {
		t.Errorf("%d revisions from %d on, %d on the disk", len(list), list[0].Number, len(s.kept()))
	}
	if got := fmt.Sprint(Gone(list)); got != "[[1 10]]" {
		t.Errorf("gone are %s", got)
	}
	_, err := e.Rollback(t.Context(), 10, ApplyOptions{})
	if !errors.Is(err, ErrNoRevision) || !strings.Contains(err.Error(), "any more: the newest 50 are kept") {
		t.Errorf("rollback to one that is gone: %v", err)
	}
	if _, err := e.Rollback(t.Context(), 999, ApplyOptions{}); !errors.Is(err, ErrNoRevision) || strings.Contains(err.Error(), "any more") {
		t.Errorf("rollback to one that never was: %v", err)
	}
	if r, err := e.Rollback(t.Context(), 11, ApplyOptions{}); err != nil || r.Revision != keptRevisions+11 {
		t.Errorf("rollback to the oldest: %+v, %v", r, err)
	}
	e = s.start()
	s.live(e, keptRevisions+11, 0)
	if r := s.apply(e, numbered(0), ApplyOptions{}); r.Revision != keptRevisions+12 {
		t.Errorf("after a restart revision %d is made", r.Revision)
	}
}

func TestTheBaseAndTheLastConfirmedRevisionsAreKeptHoweverOld(t *testing.T) {
	s, e := running(t, confA)
	for n := 2; n <= 4; n++ {
		s.apply(e, numbered(n), ApplyOptions{})
	}
	for n := 5; n <= keptRevisions+20; n++ {
		s.apply(e, numbered(n), ApplyOptions{Confirm: minute})
	}
	if got, want := fmt.Sprint(Gone(e.History())), "[[1 1] [5 20]]"; got != want {
		t.Errorf("gone are %s, want %s", got, want)
	}
	s.clock.reboot()
	e = s.start()
	s.live(e, 4, 0)
	s.holds(numbered(4))
}

func TestACrashWhileRevisionsArePrunedLeavesNothingHalf(t *testing.T) {
	done := false
	for point := 1; !done; point++ {
		s, e := running(t, confA)
		for n := 2; n <= keptRevisions; n++ {
			s.apply(e, numbered(n), ApplyOptions{})
		}
		c := &crasher{}
		c.use(s)
		e = s.start()
		done = !c.run(point, func() { s.apply(e, numbered(keptRevisions+1), ApplyOptions{}) })
		e = s.start()
		if n, _, _ := e.Current(); n != keptRevisions && n != keptRevisions+1 {
			t.Fatalf("crash at point %d: revision %d is live", point, n)
		}
		for _, name := range s.kept() {
			if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "torn") {
				t.Errorf("crash at point %d leaves %s", point, name)
			}
		}
		for _, m := range e.History() {
			if _, _, err := e.Stored(t.Context(), m.Number); err != nil {
				t.Errorf("crash at point %d: %v", point, err)
			}
		}
	}
}
