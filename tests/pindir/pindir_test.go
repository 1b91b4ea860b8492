package pindir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"sluice/xdp/pin"
)

var hook = pin.Hook{Kind: "tcx-ingress", Interface: "eth0"}

func good(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// use leaves a directory as a test does: a live generation, a former one, and state in maps of every kind.
func use(t *testing.T, path string) {
	t.Helper()
	dir, err := pin.Open(path)
	good(t, err)
	for digest, live := range map[string]bool{"0a": false, "0b": true} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
		good(t, err)
		defer p.Close()
		good(t, dir.SaveGeneration("tc", digest, &pin.Generation{Programs: map[string]*ebpf.Program{"of-" + digest: p}}))
		if live {
			good(t, dir.Switch(hook, p))
		}
	}
	for _, kind := range []ebpf.MapType{ebpf.Array, ebpf.Hash, ebpf.LRUHash} {
		m := state(t, path, kind)
		for key := range uint32(3) {
			good(t, m.Put(key, uint32(7)))
		}
	}
	cpus, err := ebpf.PossibleCPU()
	good(t, err)
	good(t, state(t, path, ebpf.PerCPUArray).Put(uint32(2), slices.Repeat([]uint32{7}, cpus)))
	state(t, path, ebpf.RingBuf)
	for value := range uint32(3) {
		good(t, state(t, path, ebpf.Queue).Put(nil, value))
	}
	good(t, state(t, path, ebpf.HashOfMaps).Put(uint32(1), state(t, path, ebpf.Array)))
}

func state(t *testing.T, path string, kind ebpf.MapType) *ebpf.Map {
	t.Helper()
	spec := &ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: 4, MaxEntries: 1000}
	switch kind {
	case ebpf.RingBuf:
		spec = &ebpf.MapSpec{Type: kind, MaxEntries: uint32(os.Getpagesize())}
	case ebpf.Queue:
		spec.KeySize = 0
	case ebpf.HashOfMaps:
		spec.InnerMap = &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1000}
	}
	m, err := pin.At(path).StateMap(spec, kind.String(), 1)
	good(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func like(name string) func() string { return func() string { return name } }

func TestADirectoryIsLentAgainWithItsGenerationsAndNoState(t *testing.T) {
	l := NewLender("pindir-test")
	t.Cleanup(func() { good(t, l.Close()) })
	var first, second string
	is := "a"
	t.Run("first", func(t *testing.T) {
		first = l.Lend(t, func() string { return is })
		use(t, first)
		is = "b"
	})
	t.Run("what wants another", func(t *testing.T) {
		if path := l.Lend(t, like("a")); path == first {
			t.Error("it was lent as what it was at first")
		}
	})
	t.Run("what wants its like", func(t *testing.T) {
		if second = l.Lend(t, like("b")); second != first {
			t.Fatalf("%s was made, though %s is idle", second, first)
		}
		dir := pin.At(second)
		g, err := dir.LoadGeneration("tc", spare)
		good(t, err)
		defer g.Close()
		before, err := dir.LoadGeneration("tc", former)
		good(t, err)
		defer before.Close()
		all, err := dir.Generations("tc")
		good(t, err)
		if g.Programs["of-0b"] == nil || before.Programs["of-0a"] == nil || !slices.Equal(all, []string{former, spare}) {
			t.Errorf("generations %v, programs %v and %v", all, g.Programs, before.Programs)
		}
		if hooks, err := dir.Hooks(""); err != nil || len(hooks) != 0 {
			t.Errorf("hooks %v, %v", hooks, err)
		}
		for _, kind := range []ebpf.MapType{ebpf.Array, ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUArray, ebpf.HashOfMaps} {
			if diff := cmp.Diff(zeroes(kind), contents(t, state(t, second, kind))); diff != "" {
				t.Errorf("%v (-want +got):\n%s", kind, diff)
			}
		}
		var value uint32
		if err := state(t, second, ebpf.Queue).LookupAndDelete(nil, &value); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("the queue gave %d: %v", value, err)
		}
	})
}

// zeroes are what a new map of that kind holds.
func zeroes(kind ebpf.MapType) map[string]int {
	if kind == ebpf.Array || kind == ebpf.PerCPUArray {
		return map[string]int{"zero": 1000}
	}
	return map[string]int{}
}

func contents(t *testing.T, m *ebpf.Map) map[string]int {
	t.Helper()
	out := map[string]int{}
	var key uint32
	if m.Type() == ebpf.PerCPUArray {
		var values []uint32
		all := m.Iterate()
		for all.Next(&key, &values) {
			out[word(slices.Max(values))]++
		}
		good(t, all.Err())
		return out
	}
	var value uint32
	all := m.Iterate()
	for all.Next(&key, &value) {
		out[word(value)]++
	}
	good(t, all.Err())
	return out
}

func word(n uint32) string {
	if n == 0 {
		return "zero"
	}
	return fmt.Sprint(n)
}

func TestWhatIsNotGoodToUseAgainGoes(t *testing.T) {
	l := NewLender("pindir-test-gone")
	t.Cleanup(func() { good(t, l.Close()) })
	for name, spoil := range map[string]func(t *testing.T, path string){
		"nothing is live":  func(t *testing.T, path string) { good(t, pin.At(path).RemoveHook(hook)) },
		"a socket is left": func(t *testing.T, path string) { good(t, os.Mkdir(filepath.Join(path, "sockets", "dns"), 0o700)) },
		"a former table": func(t *testing.T, path string) {
			good(t, os.Rename(filepath.Join(path, "maps", "Hash-v1"), filepath.Join(path, "maps", "Hash-v1-former-3")))
		},
		"the directory is away": func(t *testing.T, path string) { good(t, pin.At(path).RemoveAll()) },
	} {
		var path string
		t.Run(name, func(t *testing.T) {
			path = l.Lend(t, like("x"))
			use(t, path)
			spoil(t, path)
		})
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it is there still: %v", name, err)
		}
	}
}

// TestWhatAKilledProcessLeftGoesWithTheNext: nobody calls a cleanup of a test that ran out of time.
func TestWhatAKilledProcessLeftGoesWithTheNext(t *testing.T) {
	ended := exec.CommandContext(t.Context(), "true")
	good(t, ended.Run())
	l := NewLender("pindir-test-left")
	left, alive := filepath.Join(l.parent(ended.Process.Pid), "1"), filepath.Join(l.parent(os.Getppid()), "1")
	use(t, left)
	good(t, os.MkdirAll(alive, 0o700))
	t.Cleanup(func() { good(t, os.RemoveAll(filepath.Dir(alive))) })
	path := l.New(t)
	t.Cleanup(func() { good(t, l.Close()) })
	if _, err := os.Stat(filepath.Dir(left)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the dead process left: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("a living process lost its directory: %v", err)
	}
	use(t, path)
}
