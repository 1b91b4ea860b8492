package progruntc_test

import (
	"maps"
	"slices"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
)

// TestOneReasonIsCountedAsAmongAllOthers: Dropped keeps maps and slots from one call to the next, Counters nothing.
func TestOneReasonIsCountedAsAmongAllOthers(t *testing.T) {
	h := newHidden(t)
	h.gateway.enter(t)
	same := func(what string, wl1 uint64) {
		t.Helper()
		all, err := h.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		for _, i := range all.Interfaces {
			want[i.Name] = i.Reasons[abi.ReasonSnatExhausted].Packets
		}
		if len(want) > 0 {
			want[""] += 0 // which Counters leaves out at zero
		}
		got, err := h.Dropped(t.Context(), abi.ReasonSnatExhausted)
		if err != nil || !maps.Equal(got, want) || got["wl1"] != wl1 {
			t.Errorf("%s: %v (%v), want %v, and %d of wl1", what, got, err, want, wl1)
		}
	}
	exhaust := func() { // a second flow without ports has no translation
		h.stack(t, "down", frameOf(t, "gre 10.0.3.9 > 198.51.100.7"))
		h.pass(t, "wl1 ingress", "", frameOf(t, "gre 10.0.1.10 > 198.51.100.7"), abi.ReasonSnatExhausted)
	}
	same("at first", 0)
	exhaust()
	same("one packet", 1)
	with := h.want
	without := with
	without.Interfaces = slices.DeleteFunc(slices.Clone(with.Interfaces), func(i tc.Interface) bool { return i.Name == "wl1" })
	without.Generation.Workloads = with.Generation.Workloads[1:]
	h.converge(t, without)
	same("an interface has gone", 0)
	h.converge(t, with)
	same("it is back, and its slot", 1)
	if err := h.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	same("down", 0)
	h.converge(t, with)
	h.reasons, h.g = nil, h.live(t)
	same("up again", 0)
	exhaust()
	same("one packet again", 1)
}
