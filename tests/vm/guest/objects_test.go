//go:build vmguest

package guest

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestEveryObjectLoads offers each compiled object below /objects to this kernel's verifier.
func TestEveryObjectLoads(t *testing.T) {
	var objects []string
	for _, pattern := range []string{"/objects/*.o", "/objects/*/*.o"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, found...)
	}
	if len(objects) == 0 {
		t.Fatal("there are no BPF objects below /objects: the host put none into vm.Guest.Files")
	}
	for _, path := range objects {
		t.Run(strings.TrimPrefix(path, "/objects/"), func(t *testing.T) { load(t, path) })
	}
}

// load loads the programs of an object hook by hook: a program array that one hook's program uses is refused to
// another's.
func load(t *testing.T, path string) {
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Programs) == 0 {
		t.Fatal("the object holds no program")
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone // nothing else lives here that a pin could be shared with
	}
	hooks := map[ebpf.AttachType]bool{}
	for _, p := range spec.Programs {
		hooks[p.AttachType] = true
	}
	for hook := range hooks {
		one := spec.Copy()
		maps.DeleteFunc(one.Programs, func(_ string, p *ebpf.ProgramSpec) bool { return p.AttachType != hook })
		c, err := ebpf.NewCollection(one)
		if err != nil {
			t.Errorf("%+v", err)
			continue
		}
		t.Logf("%s: loaded %v, %d maps", hook, slices.Sorted(maps.Keys(c.Programs)), len(c.Maps))
		c.Close()
	}
}

// The verifier is at work: it refuses a read of the packet that looks at no bound.
func TestABadObjectIsRefused(t *testing.T) {
	bad := &ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // xdp_md.data
		asm.LoadMem(asm.R0, asm.R2, 0, asm.Byte),
		asm.Return(),
	}}
	p, err := ebpf.NewProgram(bad)
	if err == nil {
		p.Close()
		t.Fatal("it was loaded")
	}
	if !strings.Contains(err.Error(), "invalid access to packet") {
		t.Errorf("refused for another reason: %v", err)
	}
}
