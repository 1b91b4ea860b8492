package pin_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"sluice/xdp/pin"
)

func TestKeptMapsFollowTheirPins(t *testing.T) {
	d := open(t)
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	a, b := d.StateMapPath("a", 1), d.StateMapPath("b", 1)
	write := func(name string, value uint32) {
		t.Helper()
		m, err := d.ReplaceStateMap(spec, name, 1, func(m *ebpf.Map) error { return m.Put(uint32(0), value) })
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	var k pin.Kept
	defer k.Close()
	for _, step := range []struct {
		name   string
		do     func()
		others bool
		held   uint32 // in a; 0: none is held
	}{
		{"nothing is pinned", func() {}, false, 0},
		{"one of two is pinned", func() { write("a", 1) }, false, 0},
		{"both are", func() { write("b", 9) }, true, 1},
		{"nothing happened", func() {}, false, 1},
		{"one took the place of another", func() { write("a", 2) }, true, 2},
		{"one has gone", func() { _ = d.RemoveStateMap("b", 1) }, true, 0},
		{"and is still away", func() {}, false, 0},
		{"it is back", func() { write("b", 9) }, true, 2},
	} {
		step.do()
		others, err := k.Renew(a, b)
		if err != nil || others != step.others {
			t.Fatalf("%s: others %v, %v", step.name, others, err)
		}
		var held uint32
		if m := k.Map(a); m != nil {
			if err := m.Lookup(uint32(0), &held); err != nil {
				t.Fatal(err)
			}
		}
		if held != step.held || (k.Map(b) != nil) != (held != 0) {
			t.Errorf("%s: it holds %d, want %d", step.name, held, step.held)
		}
	}
}
