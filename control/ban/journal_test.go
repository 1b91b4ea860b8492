package ban

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// copied is the state directory of m at this moment, as a power cut would leave it, for a machine that boots with it.
func (m *machine) copied(t *testing.T) *machine {
	t.Helper()
	next := newMachine(t)
	next.wall, next.boot = m.wall, 10*time.Second
	entries, err := os.ReadDir(filepath.Dir(m.path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(m.path), e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(filepath.Dir(next.path), e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return next
}

func TestTheJournalBringsBansThroughAPowerCutAtAnyMoment(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	check := func(when, bans string) {
		t.Helper()
		want(t, when, left(t, m.copied(t).list(t)), bans)
	}
	add(t, l, 0, "192.0.2.1", "192.0.2.2")
	check("before the file was ever written", "192.0.2.1 0s, 192.0.2.2 0s")
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	check("after it", "192.0.2.1 0s, 192.0.2.2 0s")
	if _, err := l.Remove(targets(t, "192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	add(t, l, time.Hour, "192.0.2.2", "192.0.2.3")
	const three = "192.0.2.2 1h0m0s, 192.0.2.3 1h0m0s"
	check("in the journal", three)

	// While the file is written anew.
	records := l.records()
	if err := l.journal.turn(); err != nil {
		t.Fatal(err)
	}
	check("the journal is set aside", three)
	add(t, l, 0, "192.0.2.4")
	if _, err := l.Remove(targets(t, "192.0.2.3")); err != nil {
		t.Fatal(err)
	}
	const now = "192.0.2.2 1h0m0s, 192.0.2.4 0s"
	check("and another begun", now)
	if err := l.journal.turn(); err != nil { // a second try, after the first failed, sets nothing aside
		t.Fatal(err)
	}
	check("tried again", now)
	if err := writeFile(m.path, records); err != nil {
		t.Fatal(err)
	}
	check("the file is new, and what it holds still aside", now)
	if err := l.journal.written(); err != nil {
		t.Fatal(err)
	}
	check("at the end", now)
}

func TestATornLineOfTheJournalLosesThatLineAlone(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	add(t, l, 0, "192.0.2.1")
	add(t, l, 0, "192.0.2.2")
	whole, err := os.ReadFile(l.journal.path)
	if err != nil {
		t.Fatal(err)
	}
	first := strings.IndexByte(string(whole), '\n') + 1
	for cut := range whole {
		torn := m.copied(t)
		path := filepath.Join(filepath.Dir(torn.path), filepath.Base(l.journal.path))
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		next := torn.list(t)
		bans := ""
		if cut >= first-1 { // without its newline a line is whole as well
			bans = "192.0.2.1 0s"
		}
		if cut == len(whole)-1 {
			bans = "192.0.2.1 0s, 192.0.2.2 0s"
		}
		want(t, fmt.Sprintf("cut at %d", cut), left(t, next), bans)
		// What is banned next is no part of the torn line, though the file was not written anew.
		add(t, next, 0, "192.0.2.3")
		want(t, fmt.Sprintf("cut at %d, and then", cut), left(t, torn.copied(t).list(t)), strings.TrimPrefix(bans+", 192.0.2.3 0s", ", "))
	}
	for _, line := range []string{"", "x", "00000000 {}", `8d2f0e3c {"ban":{"target":"192.0.2.7/24"}}`} {
		if _, ok := parseChange(line); ok {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestWhatEndedIsNotBroughtBackByTheJournal(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, time.Minute, "192.0.2.1")
	m.pass(2 * time.Minute)
	l.sweep()
	m.wall = m.wall.Add(-time.Hour) // the clock of the next boot is wrong
	want(t, "after a reboot", left(t, m.copied(t).list(t)), "")
}

func TestALongJournalIsMadeAFile(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	for range fewLines + 1 {
		add(t, l, time.Hour, "192.0.2.1")
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := readFile(m.path); err != nil || len(got) != 1 || got[0].Target != netip.MustParsePrefix("192.0.2.1/32") {
		t.Errorf("the file has %v (%v)", got, err)
	}
	if _, err := os.Stat(l.journal.path); !os.IsNotExist(err) {
		t.Errorf("the journal: %v", err)
	}
	add(t, l, 0, "192.0.2.2")
	want(t, "and goes on", left(t, m.copied(t).list(t)), "192.0.2.1 1h0m0s, 192.0.2.2 0s")
}
