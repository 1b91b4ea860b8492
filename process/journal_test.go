package process

import (
	"bufio"
	"net"
	"testing"
	"time"
)

func TestTheJournalRepeatsNothingSoonAndKeepsWhatNobodyHears(t *testing.T) {
	now := time.Unix(0, 0)
	j := NewJournal()
	j.now = func() time.Time { return now }
	for range 5 {
		j.Sayf("no route to %s", "here")
	}
	j.Sayf("something else")
	now = now.Add(repeat)
	j.Sayf("no route to %s", "there")
	ours, theirs := net.Pipe()
	go j.follow(theirs)
	lines := bufio.NewScanner(ours)
	for _, want := range []string{"no route to here", "something else", "no route to there", "and now this"} {
		if want == "and now this" {
			for j.watchers() == 0 {
				time.Sleep(time.Millisecond)
			}
			j.Sayf("and now this")
		}
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("%q, want %q", lines.Text(), want)
		}
	}
	ours.Close()
	for deadline := time.Now().Add(10 * time.Second); j.watchers() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who has gone is still written to")
		}
	}
	for i := range 2 * maxWaiting {
		now = now.Add(repeat)
		j.Sayf("line %d", i)
	}
	if len(j.waiting) != maxWaiting {
		t.Errorf("%d lines wait", len(j.waiting))
	}
}
