package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// faults remembers what it was told last of each file.
type faults struct{ unwritten, damaged map[string]string }

func newFaults() *faults { return &faults{map[string]string{}, map[string]string{}} }

func (f *faults) Wrote(file string, err error) {
	if delete(f.unwritten, file); err != nil {
		f.unwritten[file] = err.Error()
	}
}

func (f *faults) Damaged(file, what string) {
	if delete(f.damaged, file); what != "" {
		f.damaged[file] = what
	}
}

// heardBy is engine with somebody who is told.
func (s *site) heardBy(f *faults) *Engine {
	s.t.Helper()
	store, err := openStore(s.dir, s.disk)
	if err != nil {
		s.t.Fatal(err)
	}
	o := s.options(store)
	o.Faults = f
	e, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// fills has the disk take nothing more while full.
func (s *site) fills(full *bool) {
	s.disk.before = func(op, path string) error {
		if *full && op != "remove" && op != "sync" && op != "mkdir" {
			return fmt.Errorf("%s %s: %w", op, path, unix.ENOSPC)
		}
		return nil
	}
}

func TestAFullDiskKeepsNoStartFromTheConfirmedRevision(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*site)
		owed  string
	}{
		{"nothing to be written", func(*site) {}, ""},
		{"a revision that was pending over a reboot", func(s *site) {
			s.apply(s.start(), confB, ApplyOptions{Confirm: minute})
			s.clock.id = "boot-2"
		}, "revisions/2/meta.json"},
		{"rule ids that are lost", func(s *site) {
			if err := os.WriteFile(filepath.Join(s.dir, ruleIDFile), []byte("{"), 0o600); err != nil {
				s.t.Fatal(err)
			}
		}, ruleIDFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := running(t, confA)
			c.spoil(s)
			s.m.state = map[string]map[string]string{} // as after a reboot
			full := true
			s.fills(&full)
			f := newFaults()
			e := s.heardBy(f)
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.holds(confA)
			s.condition(e, ConditionDegraded, False)
			if err := f.unwritten[c.owed]; (c.owed != "") != strings.Contains(err, "no space left") {
				t.Errorf("told %v, want %q", f.unwritten, c.owed)
			}
			e.tick(t.Context())
			if (c.owed != "") != (len(f.unwritten) > 0) {
				t.Errorf("while the disk is full: %v", f.unwritten)
			}
			full = false
			e.tick(t.Context())
			if len(f.unwritten) > 0 {
				t.Errorf("with room: %v", f.unwritten)
			}
			s.live(s.start(), 1, 0)
			s.holds(confA)
		})
	}
}

func TestADamagedRevisionIsToldUntilThereIsAnother(t *testing.T) {
	for file, want := range map[string]string{"meta.json": "revisions/torn-2", "config.yaml": "revisions/2"} {
		t.Run(file, func(t *testing.T) {
			s, e := running(t, confA)
			s.apply(e, confB, ApplyOptions{})
			if err := os.WriteFile(filepath.Join(s.dir, "revisions", "2", file), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			var f *faults
			for range 2 { // the second start finds what the first set aside
				f = newFaults()
				if e = s.heardBy(f); e.Start(t.Context()) != nil || len(f.damaged) != 1 || f.damaged[want] == "" {
					t.Errorf("told %v, want %s", f.damaged, want)
				}
				s.live(e, 1, 0)
			}
			s.apply(e, confC, ApplyOptions{})
			if len(f.damaged) > 0 {
				t.Errorf("after an apply: %v", f.damaged)
			}
			f = newFaults()
			if err := s.heardBy(f).Start(t.Context()); err != nil || len(f.damaged) > 0 {
				t.Errorf("after an apply and a start: %v, %v", f.damaged, err)
			}
		})
	}
}

func TestAFullDiskKeepsNobodyFromDown(t *testing.T) {
	s, _ := running(t, confA)
	full := false
	s.fills(&full)
	f := newFaults()
	e := s.heardBy(f)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	full = true
	if err := e.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.holds("")
	if f.unwritten["revisions/2/meta.json"] == "" {
		t.Errorf("told %v", f.unwritten)
	}
	e = s.start()
	s.holds(confA)
	full = false
	e.tick(t.Context())
	s.live(e, 1, 0)
}
