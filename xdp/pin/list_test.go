package pin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestPinsAreListedByWhatTheyAre(t *testing.T) {
	dir, err := os.MkdirTemp("/sys/fs/bpf", "sluice-list-")
	if err != nil {
		t.Fatalf("a directory on a bpf file system (root is needed): %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "gen"), 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "numbers", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "pass", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := errors.Join(m.Pin(filepath.Join(dir, "gen", "numbers")), p.Pin(filepath.Join(dir, "gen", "pass"))); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := List(t.Context(), &out, dir); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "gen/numbers ") || !strings.Contains(lines[0], "Hash numbers key 4 value 8 max 16") ||
		!strings.Contains(lines[1], "gen/pass ") || !strings.Contains(lines[1], "XDP pass tag ") {
		t.Errorf("got\n%s", out.String())
	}
	if err := List(t.Context(), &out, filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}
