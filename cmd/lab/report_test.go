package lab

import (
	"bytes"
	"errors"
	"regexp"
	"testing"
)

func TestTheReportTicksAndCrosses(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.line("bgp", "2 sessions up", nil)
	r.detail("one\n\ntwo\n")
	r.line("http", "answered by a", errors.New("b is silent\nits log ends:\nboom"))
	r.line("flood", "", errors.New("no attacker"))
	holds := r.summary(3)
	want := `✓ bgp      2 sessions up
           one
           two
✗ http     answered by a; b is silent
           its log ends:
           boom
✗ flood    no attacker

1 of 3 hold, in DURATION
`
	got := regexp.MustCompile(`in \S+\n$`).ReplaceAllString(out.String(), "in DURATION\n")
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if holds {
		t.Error("a report with a cross holds")
	}
}

func TestADemoThatBrokeOffDoesNotHold(t *testing.T) {
	r := newReport(&bytes.Buffer{})
	r.line("daemons", "up", nil)
	if r.summary(2) {
		t.Error("one line of two is taken for all")
	}
	r.line("bgp", "up", nil)
	if !r.summary(2) {
		t.Error("two lines of two are not taken for all")
	}
}
