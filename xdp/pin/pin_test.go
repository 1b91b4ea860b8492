package pin_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"sluice/xdp/pin"
)

// open makes a directory of pins of its own under the machine's bpffs.
func open(t *testing.T) *pin.Dir {
	t.Helper()
	parent, err := os.MkdirTemp("/sys/fs/bpf", "sluice-pin-test-")
	if err != nil {
		t.Fatalf("this test needs root and a bpffs at /sys/fs/bpf: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	d, err := pin.Open(filepath.Join(parent, "site", "a"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func program(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func id(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func TestOpenIsPrivateAndRefusesOtherFilesystems(t *testing.T) {
	d := open(t)
	stat, err := os.Stat(d.Path())
	if err != nil || stat.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v; want 0700", stat.Mode(), err)
	}
	plain := filepath.Join(t.TempDir(), "bpf")
	if _, err := pin.Open(plain); !errors.Is(err, pin.ErrNotBPFFS) {
		t.Errorf("on a plain filesystem: %v", err)
	}
	if _, err := os.Stat(plain); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the refused directory was made all the same")
	}
	if _, err := pin.Open("relative"); err == nil {
		t.Error("a relative path was accepted")
	}
}

func TestAHashOfAnotherSizeIsSupersededAndStays(t *testing.T) {
	for _, kind := range []ebpf.MapType{ebpf.Hash, ebpf.LRUHash} {
		t.Run(kind.String(), func(t *testing.T) {
			d := open(t)
			spec := &ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: 8, MaxEntries: 100}
			var ids []ebpf.MapID
			for _, size := range []uint32{100, 1000, 1000, 100} {
				spec.MaxEntries = size
				m, err := d.StateMap(spec, "flows", 1)
				if err != nil {
					t.Fatal(err)
				}
				if m.MaxEntries() != size {
					t.Errorf("%d entries, want %d", m.MaxEntries(), size)
				}
				if err := m.Put(size, uint64(size)); err != nil {
					t.Fatal(err)
				}
				info, _ := m.Info()
				id, _ := info.ID()
				ids = append(ids, id)
				m.Close()
			}
			if ids[1] != ids[2] || ids[0] == ids[3] {
				t.Errorf("maps %v: a map of the same size is opened again, and a former one is not", ids)
			}
			formers, err := d.Formers("flows", 1)
			if err != nil || len(formers) != 2 {
				t.Fatalf("formers %q (%v)", formers, err)
			}
			held := map[uint32]bool{}
			for _, path := range formers {
				m, err := ebpf.LoadPinnedMap(path, nil)
				if err != nil {
					t.Fatal(err)
				}
				var v uint64
				held[m.MaxEntries()] = m.Lookup(m.MaxEntries(), &v) == nil && v == uint64(m.MaxEntries())
				m.Close()
				if err := d.RemoveFormer(path); err != nil {
					t.Error(err)
				}
			}
			if !held[100] || !held[1000] {
				t.Errorf("the former maps do not hold what they held: %v", held)
			}
			if formers, err := d.Formers("flows", 1); err != nil || len(formers) != 0 {
				t.Errorf("formers %q (%v) are left", formers, err)
			}
			spec.ValueSize = 16
			if _, err := d.StateMap(spec, "flows", 1); err == nil {
				t.Error("another layout was accepted under the same version")
			}
			if v2, err := d.StateMap(spec, "flows", 2); err != nil {
				t.Errorf("a new version: %v", err)
			} else {
				v2.Close()
			}
		})
	}
}

func TestSlotHoldsTheProgramThatWasSwitchedLast(t *testing.T) {
	d := open(t)
	for _, name := range []string{"eth0", "eth0.100", "_a._.b", "a__d"} {
		hook := pin.Hook{Kind: "xdp", Interface: name}
		if live, err := d.Live(hook); live != 0 || err != nil {
			t.Errorf("%s without a slot: program %d, %v", hook, live, err)
		}
		slot, err := d.Slot(hook)
		if err != nil {
			t.Fatal(err)
		}
		slot.Close()
		for _, p := range []*ebpf.Program{program(t, 1), program(t, 2)} {
			if err := d.Switch(hook, p); err != nil {
				t.Fatal(err)
			}
			if live, err := d.Live(hook); live != id(t, p) || err != nil {
				t.Errorf("%s: program %d is live, want %d: %v", hook, live, id(t, p), err)
			}
		}
		if hooks, err := d.Hooks("xdp"); err != nil || !slices.Equal(hooks, []pin.Hook{hook}) {
			t.Errorf("hooks %v, %v; want %v alone", hooks, err, hook)
		}
		if hooks, _ := d.Hooks("tcx-ingress"); len(hooks) != 0 {
			t.Errorf("hooks of another kind: %v", hooks)
		}
		if err := d.RemoveHook(hook); err != nil {
			t.Error(err)
		}
		if hooks, _ := d.Hooks(""); len(hooks) != 0 {
			t.Errorf("hooks after removal: %v", hooks)
		}
	}
}

func TestGenerationsAreSavedFoundAndSwept(t *testing.T) {
	d := open(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a := &pin.Generation{Programs: map[string]*ebpf.Program{"live": program(t, 1), "explain": program(t, 2)},
		Maps: map[string]*ebpf.Map{"explained": m}}
	b := &pin.Generation{Programs: map[string]*ebpf.Program{"live": program(t, 1)}}
	for digest, g := range map[string]*pin.Generation{"aa": a, "bb": b} {
		for range 2 { // saving again replaces
			if err := d.SaveGeneration("xdp", digest, g); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.SaveGeneration("tc", "aa", b); err != nil {
		t.Fatal(err)
	}
	g, digest, name, err := d.FindGeneration("xdp", id(t, a.Programs["explain"]))
	if err != nil || digest != "aa" || name != "explain" || g.Maps["explained"] == nil {
		t.Fatalf("found %q of %q (%v): %v", name, digest, g, err)
	}
	g.Close()
	if _, _, _, err := d.FindGeneration("tc", id(t, a.Programs["live"])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program of xdp in the generations of tc: %v", err)
	}
	if err := os.Mkdir(filepath.Join(d.Path(), "gen", "xdp-cc-staged"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.Generations("xdp"); !slices.Equal(got, []string{"aa", "bb"}) {
		t.Errorf("generations %v: a half one must not count", got)
	}
	// What a sweep that was killed leaves is swept by the next, and counts for nothing before.
	if err := os.Rename(filepath.Join(d.Path(), "gen", "xdp-aa"), filepath.Join(d.Path(), "gen", "xdp-aa-staged")); err != nil {
		t.Fatal(err)
	}
	if err := d.SaveGeneration("xdp", "aa", a); err != nil {
		t.Fatal(err)
	}
	if err := d.SweepGenerations("xdp", "bb"); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(filepath.Join(d.Path(), "gen"))
	if len(left) != 2 || left[0].Name() != "tc-aa" || left[1].Name() != "xdp-bb" {
		t.Errorf("left after the sweep: %v", left)
	}
	if err := d.RemoveIfUnused(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}
