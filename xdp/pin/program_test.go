package pin_test

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"sluice/xdp/pin"
)

func TestAProgramTellsItsIDAndItsMaps(t *testing.T) {
	code := asm.Instructions{}
	var maps []*ebpf.Map
	for range 3 {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		maps, code = append(maps, m), append(code, asm.LoadMapPtr(asm.R1, m.FD()))
	}
	with, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: append(code, asm.Mov.Imm(asm.R0, 1), asm.Return())})
	if err != nil {
		t.Fatal(err)
	}
	defer with.Close()
	for p, want := range map[*ebpf.Program][]*ebpf.Map{with: maps, program(t, 2): nil} {
		if got, err := pin.ProgramID(p); err != nil || got != id(t, p) {
			t.Errorf("program %d is called %d, %v", id(t, p), got, err)
		}
		got, err := pin.ProgramMaps(p)
		if err != nil || len(got) != len(want) {
			t.Errorf("maps %v, %v; want %d", got, err, len(want))
		}
		for _, m := range want {
			info, err := m.Info()
			if err != nil {
				t.Fatal(err)
			}
			if id, _ := info.ID(); !slices.Contains(got, id) {
				t.Errorf("map %d is not among %v", id, got)
			}
		}
	}
}
