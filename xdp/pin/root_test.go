package pin_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

var uplink = pin.Hook{Kind: "xdp", Interface: "eth0.100"}

// jumper makes a program that jumps into a slot.
func jumper(slot *ebpf.Map, name string, flags uint32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, License: "GPL", Flags: flags, Instructions: asm.Instructions{
		asm.LoadMapPtr(asm.R2, slot.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 2), asm.Return()}})
}

func TestARootIsKnownByItsObjectAndItsSlot(t *testing.T) {
	d := open(t)
	name := pin.NameOf("root", []byte("an object"))
	if len(name) > 15 || name == pin.NameOf("root", []byte("another object")) || name != pin.NameOf("root", []byte("an object")) {
		t.Errorf("name %q", name)
	}
	is := func(what string, p *ebpf.Program, want bool) {
		t.Helper()
		if got, err := d.IsRoot(uplink, id(t, p), name); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	other := program(t, 2)
	is("without a slot", other, false)
	slot, err := d.Slot(uplink)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	root, err := jumper(slot, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	former, err := jumper(slot, "root_00000000", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer former.Close()
	is("the root", root, true)
	is("one of another version", former, false)
	is("another program", other, false)
	if err := os.Remove(filepath.Join(d.Path(), "slots", "xdp", "eth0_d100")); err != nil {
		t.Fatal(err)
	}
	is("the root, and no slot", root, false)
	again, err := d.Slot(uplink)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	is("the root of a slot before", root, false)
	if ok, err := d.IsRoot(uplink, 0xfffffffe, name); ok || err != nil {
		t.Errorf("a program that has gone: %v, %v", ok, err)
	}
}

func TestASlotOfAnotherVersionIsRefusedWithWhatToDo(t *testing.T) {
	d := open(t)
	slot, err := d.Slot(uplink)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	former, err := jumper(slot, "without_frags", 0) // the kernel holds the slot to this from here on
	if err != nil {
		t.Fatal(err)
	}
	defer former.Close()
	_, refused := jumper(slot, "with_frags", unix.BPF_F_XDP_HAS_FRAGS)
	if refused == nil {
		t.Fatal("the kernel takes both kinds")
	}
	wide, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	path := filepath.Join(d.Path(), "slots", "xdp", "eth0_d100")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := wide.Pin(path); err != nil {
		t.Fatal(err)
	}
	_, layout := d.Slot(uplink)
	for what, err := range map[string]error{"a slot of another kind of program": pin.RootError(uplink, refused), "a slot of another size": layout} {
		if err == nil || !strings.Contains(err.Error(), "xdp on eth0.100") || !strings.Contains(err.Error(), "sluice down") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
