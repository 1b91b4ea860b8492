package main

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// traceOf is a trace of one frame a millisecond, the command beginning with frame 4: 'x' arrived, '.' did not, '!' was
// refused by the wire.
func traceOf(text string) *Trace {
	t := &Trace{Took: 3 * time.Millisecond, Refused: map[int]bool{}}
	for i, c := range text {
		t.Sent = append(t.Sent, time.Duration(i-4)*time.Millisecond)
		t.Seen = append(t.Seen, c == 'x')
		if c == '!' {
			t.Refused[i] = true
		}
	}
	return t
}

func TestATraceTellsWhenAChangeWasSeenAndWhatWasLost(t *testing.T) {
	const ms = time.Millisecond
	swap, add := []probe{removed, added, listed, unlisted}, []probe{added, listed, unlisted}
	for _, c := range []struct {
		name, trace string
		probes      []probe
		want        Change
	}{
		// removed arrives after the exchange, added before it.
		{"an exchange between two frames", ".x.x" + ".x.x" + "x..x" + "x..x", swap, Change{FirstNew: 4 * ms, LastOld: ms, Frames: 16}},
		{"both lists judge for a while", ".x.x" + "xx.x" + ".x.x" + "x..x", swap, Change{FirstNew: 0, LastOld: 5 * ms, Frames: 16, Mixed: 3}},
		{"frames are lost", ".x.." + "...x" + "x..x" + "x...", swap, Change{FirstNew: 4 * ms, LastOld: -3 * ms, Frames: 16, Lost: 2}},
		{"no list is there for a moment", ".x.x" + ".x.x" + "x.xx" + "x..x", swap, Change{FirstNew: 4 * ms, LastOld: ms, Frames: 16, Leaked: 1}},
		{"the wire is full", ".x.x" + ".x.!" + "x.!x" + "x..x", swap, Change{FirstNew: 4 * ms, LastOld: ms, Frames: 14, Refused: 2}},
		{"an addition", "x.x" + "x.x" + "..x" + "..x", add, Change{FirstNew: 2 * ms, LastOld: -ms, Frames: 12}},
		{"an addition that flickers", "x.x" + "..x" + "x.x" + "..x", add, Change{FirstNew: -ms, LastOld: 2 * ms, Frames: 12, Mixed: 1}},
	} {
		c.want.Command, c.want.Pause, c.want.held = 3*ms, ms, true
		c.want.end = time.Duration(len(c.trace)-5) * ms
		if diff := cmp.Diff(c.want, *judge(traceOf(c.trace), c.probes), cmp.AllowUnexported(Change{})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestALaneThatDoesOtherwiseIsAnError(t *testing.T) {
	swap := []probe{removed, added, listed, unlisted}
	for name, c := range map[string]struct {
		trace *Trace
		bad   bool
	}{
		"good": {&Trace{Sent: []time.Duration{-2, -1, 0, 1, 2, 3, 4, 5}, Seen: []bool{false, true, false, true, true, false, false, true}, Took: 5}, false},
		"a sender that stood still before the command": {&Trace{Sent: []time.Duration{-leadIn, -leadIn + 1, 0, 1, 2, 3, 4, 5},
			Seen: []bool{false, true, false, false, true, false, false, true}, Took: 5}, false},
		"never loaded":  {&Trace{Sent: []time.Duration{-leadIn, 0, 1, 2}, Seen: []bool{false, false, false, true}, Took: 5}, true},
		"never changed": {&Trace{Sent: []time.Duration{-2, -1, 0, 1, leadOut, leadOut + 1, leadOut + 2}, Seen: []bool{false, true, false, true, false, true, false}, Took: 5}, true},
	} {
		if err := judge(c.trace, swap).check(); (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListsOfTwoSidesShareTheirCommonAddressesAlone(t *testing.T) {
	for _, n := range []int{10, 5000} {
		even, odd := newList(Even, n), newList(Odd, n)
		if len(even) != n || len(odd) != n {
			t.Fatalf("%d and %d of %d", len(even), len(odd), n)
		}
		held := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for _, p := range []probe{removed, added, listed, unlisted} {
			addresses := sources(p, even, odd)
			if len(addresses) == 0 {
				t.Errorf("no address for %+v in lists of %d", p, n)
			}
			for _, a := range addresses {
				if passes := (probe{!held(even, a), !held(odd, a)}); passes != p {
					t.Errorf("%s passes %+v, want %+v", a, passes, p)
				}
			}
		}
		apart := outermost(even)
		for i, p := range apart {
			if i > 0 && apart[i-1].Overlaps(p) {
				t.Errorf("%s lies in another one", p)
			}
		}
	}
}
