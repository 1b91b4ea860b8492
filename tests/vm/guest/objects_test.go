//go:build vmguest

package guest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
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

func load(t *testing.T, path string) {
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Programs) == 0 {
		t.Fatal("the object holds no program")
	}
	for _, m := range spec.Maps {
		// Nothing else lives here that a pin could be shared with.
		m.Pinning = ebpf.PinNone
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Logf("%d programs, %d maps", len(c.Programs), len(c.Maps))
	c.Close()
}
