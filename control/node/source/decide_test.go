package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/engine"
)

func (n *node) live() string {
	_, c, _ := n.engine.Current()
	return string(c.Bytes)
}

const (
	first   = "node: {name: first}\n"
	second  = "node: {name: second}\n"
	checked = "node: {name: checked}\napply: {checks: [{reach: 198.18.0.1}]}\n"
	refused = "node: {name: refused}\n"
)

// booted is a node that came up with first.
func booted(t *testing.T) *node {
	n := newNode(t)
	n.bring(first)
	n.start()
	if b, _ := n.decide(-1); b.Outcome != Accepted || b.Revision != 1 || n.applies != 0 {
		t.Fatalf("the first start: %+v after %d applies", b, n.applies)
	}
	return n
}

func TestASourceIsDecidedByItsChecks(t *testing.T) {
	for _, c := range []struct {
		name, text, failing string
		want                Outcome
		why                 string
	}{
		{"no checks", second, "", Accepted, ""},
		{"checks that hold", checked, "", Accepted, ""},
		{"checks that fail", checked, "no answer", Rejected, "no answer"},
		{"a file that does not compile", refused, "", Rejected, "there is no interface eth0"},
		{"a file that does not parse", "nodes: {}\n", "", Rejected, "did you mean node?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := booted(t)
			n.failing = c.failing
			n.bring(c.text)
			n.reboot()
			if n.live() != first {
				t.Fatalf("an undecided source is live: %q", n.live())
			}
			b, _ := n.decide(-1)
			if b.Outcome != c.want || !strings.Contains(b.Why, c.why) {
				t.Errorf("%+v", b)
			}
			want := first
			if c.want == Accepted {
				want = c.text
			}
			n.failing = ""
			for range 2 { // the same source again
				n.reboot()
				if b, _ := n.decide(-1); b.Outcome != c.want || n.live() != want || n.applies != 1 {
					t.Errorf("at the next boot: %+v, %q is live, %d applies", b, n.live(), n.applies)
				}
			}
		})
	}
}

// TestChecksAreWatchedForAWhile: one that holds at once and then fails is no reason to keep a file.
func TestChecksAreWatchedForAWhile(t *testing.T) {
	n := booted(t)
	n.bring(checked)
	n.reboot()
	begin := n.clock.Boot()
	n.decide(-1)
	if lived := n.clock.Boot() - begin; lived < hold || lived > hold+5*time.Second {
		t.Errorf("kept after %s", lived)
	}
}

func TestASourceThatWasDecidedLeavesLaterRevisionsAlone(t *testing.T) {
	n := booted(t)
	cfg, err := parse("x", []byte(second), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.engine.Apply(t.Context(), engine.Candidate{Name: "x", Bytes: []byte(second), Config: cfg}, engine.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	n.reboot()
	if b, _ := n.decide(-1); b.Outcome != Accepted || n.live() != second || n.applies != 0 {
		t.Errorf("%+v, %q is live after %d applies", b, n.live(), n.applies)
	}
}

// TestWhatSomebodyElseHasPendingIsLeftAlone until it has ended.
func TestWhatSomebodyElseHasPendingIsLeftAlone(t *testing.T) {
	n := booted(t)
	n.bring(second)
	n.reboot()
	cfg, err := parse("x", []byte(checked), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.engine.Apply(t.Context(), engine.Candidate{Name: "x", Bytes: []byte(checked), Config: cfg}, engine.ApplyOptions{Confirm: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	n.decide(100)
	if p := n.engine.Pending(); p == nil || p.Revision != r.Revision || n.applies != 0 {
		t.Errorf("pending is %+v after %d applies", p, n.applies)
	}
	if b, _ := n.decide(-1); b.Outcome != Accepted || n.live() != second {
		t.Errorf("%+v, %q is live", b, n.live())
	}
}

// TestAPowerCutAtAnyInstantIsDecided, and so is the death of the daemon and of the deciding process: what is live in the end is what the
// record says, and what was rejected is not tried again.
func TestAPowerCutAtAnyInstantIsDecided(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*node)
	}{
		{"power cut", (*node).reboot}, {"daemon killed", (*node).restart}, {"decide killed", func(*node) {}},
	} {
		for _, text := range []string{second, checked, refused} {
			t.Run(end.name+" "+strings.Fields(text)[2], func(t *testing.T) {
				outcomes, points := map[Outcome]int{}, 0
				for after := 0; ; after++ {
					n := booted(t)
					n.bring(text)
					n.reboot()
					_, cut := n.decide(after)
					if !cut {
						break
					}
					points++
					end.do(n)
					b, _ := n.decide(-1)
					outcomes[b.Outcome]++
					n.sane(after, text, b)
					n.end()
				}
				t.Logf("cut at %d places: %v", points, outcomes)
				if points < 5 {
					t.Errorf("only %d places", points)
				}
				if text != refused && outcomes[Accepted] == 0 {
					t.Error("nothing was ever accepted")
				}
			})
		}
	}
}

func (n *node) sane(after int, text string, b Boot) {
	n.t.Helper()
	want := first
	switch b.Outcome {
	case Accepted:
		want = text
	case Rejected:
	default:
		n.t.Errorf("cut at %d: it is not decided: %+v", after, b)
	}
	applies := n.applies
	n.reboot()
	again, _ := n.decide(-1)
	if n.live() != want || n.engine.Pending() != nil || again.Outcome != b.Outcome || n.applies != applies {
		n.t.Errorf("cut at %d: %+v, then %+v; live is %q, pending %v, %d applies more", after, b, again, n.live(), n.engine.Pending(), n.applies-applies)
	}
}

// TestADamagedBookLosesNoDecision: the history has them, too.
func TestADamagedBookLosesNoDecision(t *testing.T) {
	n := booted(t)
	n.failing = "no answer"
	n.bring(checked)
	n.reboot()
	n.decide(-1)
	n.failing = ""
	if err := os.WriteFile(filepath.Join(n.dir, bookName), []byte(`{"schema": 1, "tri`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.reboot()
	if b, _ := n.decide(-1); b.Outcome != Rejected || n.applies != 1 {
		t.Errorf("%+v after %d applies", b, n.applies)
	}
	newer := []byte(`{"schema": 9}`)
	if err := os.WriteFile(filepath.Join(n.dir, bookName), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Decide(t.Context(), DecideOptions{Dir: n.bootDir(), StateDir: n.dir, Daemon: n, Log: discard, Now: n.now, Sleep: n.Sleep})
	left, _ := os.ReadFile(filepath.Join(n.dir, bookName))
	if !errors.Is(err, errNewer) || string(left) != string(newer) {
		t.Errorf("a newer book: %v, and it holds %s", err, left)
	}
}

// TestAFirstFileThatFailsIsTriedAtTheNextBoot: there is nothing to lose, and a card may have come too late.
func TestAFirstFileThatFailsIsTriedAtTheNextBoot(t *testing.T) {
	n := newNode(t)
	n.bring(first)
	n.lacks = true
	n.start()
	if b, _ := n.decide(-1); b.Outcome != Rejected || n.engine.Status().Revision != 0 {
		t.Fatalf("%+v, revision %d", b, n.engine.Status().Revision)
	}
	n.lacks = false
	n.reboot()
	if b, _ := n.decide(-1); b.Outcome != Accepted || b.Revision == 0 || n.live() != first {
		t.Errorf("%+v, %q is live", b, n.live())
	}
}
