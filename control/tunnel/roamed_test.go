package tunnel

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestAPeerThatRoamsIsToldOf, once for each place, and nothing is compiled for it. Where we send its device ourselves is told by why.
func TestAPeerThatRoamsIsToldOf(t *testing.T) {
	w := newWorld(t, one(e1, e2))
	w.answers(e1, e2, roamed)
	w.run(5 * time.Second)
	w.changed(0)
	for _, to := range []string{roamed, e1, e2} {
		w.a().endpoint = netip.MustParseAddrPort(to)
		w.run(5 * time.Second)
	}
	var told []string
	for _, e := range w.events {
		told = append(told, string(e.Kind)+": "+e.Text)
	}
	want := []string{"endpoint: peer a roamed to " + roamed + " from " + e1, "endpoint: peer a is back at " + e1 + " from " + roamed,
		"endpoint: peer a roamed to " + e2 + " from " + e1}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	w.changed(0)
	w.events = nil
	w.apply(one(e3))
	w.answers(e3)
	w.run(5 * time.Second)
	if len(w.events) != 0 {
		t.Errorf("the file's own change is told as %+v", w.events)
	}
}
