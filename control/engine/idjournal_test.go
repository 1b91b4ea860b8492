package engine

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// journal is what rule-ids.journal holds; "" where there is none.
func (s *site) journal() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, ruleIDJournal))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(b)
}

// steps are rules that come, go, and come back.
var steps = []string{"xdp.a=1\nxdp.b=1", "xdp.b=1\nxdp.c=1", "xdp.b=1\nxdp.c=1\nxdp.d=1", "xdp.a=1\nxdp.d=1", "xdp.e=1"}

func TestNewRulesAreLinesOfAJournalThatARestartReads(t *testing.T) {
	s, e := running(t, steps[0])
	whole, err := os.ReadFile(filepath.Join(s.dir, ruleIDFile))
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range steps[1:] {
		s.clock.advance(7 * minute)
		s.apply(e, text, ApplyOptions{})
		if got := strings.Count(s.journal(), "\n"); got != i+1 {
			t.Fatalf("%d lines after %d changes:\n%s", got, i+1, s.journal())
		}
		want := e.ids
		if e = s.start(); !reflect.DeepEqual(e.ids.Current, want.Current) || len(e.ids.Retired) != len(want.Retired) {
			t.Fatalf("after a restart %+v, before %+v", e.ids, want)
		}
		for i, old := range want.Retired {
			if got := e.ids.Retired[i]; got.Name != old.Name || got.ID != old.ID || !got.Until.Equal(old.Until) {
				t.Errorf("retired %v, before the restart %v", got, old)
			}
		}
	}
	if now, err := os.ReadFile(filepath.Join(s.dir, ruleIDFile)); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("the whole ids were written again: %v", err)
	}
}

func TestAJournalThatIsNotOfItsFileOrNotWholeEndsThere(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(journal string) string
		want   string // the text whose ids are known then
	}{
		{"half of the last line", func(j string) string { return j[:len(j)-9] }, steps[2]},
		{"no end of the last line", func(j string) string { return j[:len(j)-1] }, steps[2]},
		{"another file's line", func(j string) string { return strings.Replace(j, `"base":"`, `"base":"x`, 1) }, steps[0]},
		{"zeros", func(j string) string { return j + "\x00\x00\x00" }, steps[3]},
		{"nothing", func(string) string { return "" }, steps[0]},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, e := running(t, steps[0])
			known := map[string]map[string]uint32{steps[0]: maps.Clone(e.ids.Current)}
			for _, text := range steps[1:4] {
				s.apply(e, text, ApplyOptions{})
				known[text] = maps.Clone(e.ids.Current)
			}
			if err := os.WriteFile(filepath.Join(s.dir, ruleIDJournal), []byte(c.damage(s.journal())), 0o600); err != nil {
				t.Fatal(err)
			}
			store := s.engine().store
			got, err := store.loadRuleIDs()
			if err != nil || !maps.Equal(got.Current, known[c.want]) {
				t.Fatalf("ids %v, %v, want %v", got.Current, err, known[c.want])
			}
			// What is written after that is read.
			given := maps.Clone(got.Current)
			given["xdp.new"] = 77
			ch := got.change(given, s.clock.Now(), minute)
			if err := store.saveRuleIDs(got.next(given, ch), &ch); err != nil {
				t.Fatal(err)
			}
			if again, err := s.engine().store.loadRuleIDs(); err != nil || !maps.Equal(again.Current, given) {
				t.Errorf("ids %v, %v, want %v", again.Current, err, given)
			}
		})
	}
}

func TestRuleIDsOfAnOlderVersionAreReadAndWrittenAnew(t *testing.T) {
	s, _ := running(t, steps[0])
	old := `{"schema": 2, "current": {"xdp.a": 5, "xdp.b": 6}}`
	if err := os.WriteFile(filepath.Join(s.dir, ruleIDFile), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	e := s.start()
	if want := map[string]uint32{"xdp.a": 5, "xdp.b": 6}; !maps.Equal(e.ids.Current, want) {
		t.Fatalf("ids %v, want %v", e.ids.Current, want)
	}
	s.apply(e, steps[1], ApplyOptions{})
	if s.journal() != "" {
		t.Errorf("a journal goes on from a file that it cannot name:\n%s", s.journal())
	}
	want := e.ids.Current
	if e = s.start(); want["xdp.b"] != 6 || !maps.Equal(e.ids.Current, want) {
		t.Errorf("ids %v, want %v", e.ids.Current, want)
	}
}

func TestALongJournalIsReplacedByTheIDsAsAWhole(t *testing.T) {
	s, e := running(t, steps[0])
	store, now := e.store, s.clock.Now()
	ids := e.ids
	give := func(names ...string) {
		t.Helper()
		given := maps.Clone(ids.Current)
		for _, name := range names {
			given[name] = uint32(len(given) + 10)
		}
		c := ids.change(given, now, time.Hour)
		ids = ids.next(given, c)
		if err := store.saveRuleIDs(ids, &c); err != nil {
			t.Fatal(err)
		}
	}
	give("ingress/one", `ingress/"quoted" and ü`)
	if s.journal() == "" {
		t.Fatal("no journal")
	}
	many := make([]string, maxIDJournal/16)
	for i := range many {
		many[i] = fmt.Sprintf("ingress/rule-%d", i)
	}
	give(many...)
	give("ingress/two")
	if n := strings.Count(s.journal(), "\n"); n != 1 {
		t.Errorf("%d lines after the ids were written anew, want 1", n)
	}
	if got, err := s.engine().store.loadRuleIDs(); err != nil || !maps.Equal(got.Current, ids.Current) {
		t.Errorf("%d ids, want %d: %v", len(got.Current), len(ids.Current), err)
	}
}

// A disk that fails at any one call: what the engine then has in mind, and what a restart reads, are one.
func TestADiskThatFailsLeavesNoHalfOfAChangeInTheJournal(t *testing.T) {
	for n := 1; ; n++ {
		s, e := running(t, steps[0])
		s.apply(e, steps[1], ApplyOptions{})
		s.apply(e, steps[2], ApplyOptions{})
		count := 0
		s.disk.before = func(op, path string) error {
			if !strings.HasPrefix(strings.TrimPrefix(filepath.Base(path), "."), "rule-ids") {
				return nil
			}
			if count++; count != n {
				return nil
			}
			if op == "extend" {
				whole, err := os.ReadFile(path)
				if err == nil {
					err = os.WriteFile(path, append(whole, "{half"...), 0o600)
				}
				return errors.Join(errInjected, err)
			}
			return errInjected
		}
		store, err := openStore(s.dir, s.disk)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := store.loadRuleIDs()
		if err != nil {
			t.Fatal(err)
		}
		failures := 0
		for i := range 3 {
			given := maps.Clone(ids.Current)
			given[fmt.Sprintf("xdp.n%d", i)] = uint32(100 + i)
			c := ids.change(given, s.clock.Now(), minute)
			if err := store.saveRuleIDs(ids.next(given, c), &c); err != nil {
				failures++
				continue
			}
			ids = ids.next(given, c)
			if got, err := s.engine().store.loadRuleIDs(); err != nil || !maps.Equal(got.Current, ids.Current) {
				t.Fatalf("call %d, change %d: a restart reads %v, %v, want %v", n, i, got.Current, err, ids.Current)
			}
		}
		if failures == 0 {
			if n < 2 {
				t.Error("nothing failed")
			}
			break
		}
	}
}
