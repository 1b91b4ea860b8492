package pindir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"structs"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

// spare and former are the digests of what is left: none, so nobody takes them for generations that need not be filled. Names
// decide which is taken first.
const (
	spare  = "spare"  // the one that was live
	former = "former" // the one before it, for the first change
)

// reset detaches everything, leaves of each owner's generations the one that was live and one beside it, and makes all state
// zero. again: the directory is as a new one is, but for these generations.
func reset(path string) (again bool, err error) {
	dir := pin.At(path)
	hooks, err := dir.Hooks("")
	if err != nil {
		return false, err
	}
	var kinds []string
	for _, h := range hooks {
		kinds = append(kinds, h.Kind)
	}
	live, err := dir.LivePrograms(kinds...)
	if err != nil || len(live) == 0 {
		return false, err // nothing to be recast
	}
	left := map[string][]renamed{} // by owner
	for _, owner := range []string{"xdp", "tc"} {
		all, err := dir.Generations(owner)
		if err != nil {
			return false, err
		}
		idle, err := dir.Idle(owner, live)
		if err != nil {
			return false, err
		}
		busy := slices.DeleteFunc(all, func(d string) bool { return slices.Contains(idle, d) })
		if len(busy) > 1 {
			return false, nil // a test stopped halfway
		}
		if len(busy) == 0 {
			continue
		}
		if len(idle) > 0 {
			left[owner] = append(left[owner], renamed{idle[0], former}) // first: it may be called spare
		}
		left[owner] = append(left[owner], renamed{busy[0], spare})
	}
	for _, h := range hooks {
		if err := dir.RemoveHook(h); err != nil {
			return false, err
		}
	}
	for _, owner := range []string{"xdp", "tc"} {
		if err := leave(dir, owner, left[owner]); err != nil {
			return false, err
		}
	}
	for _, room := range []string{"sockets", "traces"} {
		pins, err := os.ReadDir(filepath.Join(path, room))
		if err != nil || len(pins) > 0 {
			return false, err
		}
	}
	return wipeState(filepath.Join(path, "maps"))
}

// renamed is a generation and what it is called from now on.
type renamed struct{ digest, to string }

// leave removes all generations of an owner but some.
func leave(dir *pin.Dir, owner string, some []renamed) error {
	var keep []string
	for _, r := range some {
		keep = append(keep, r.digest)
	}
	if err := dir.SweepGenerations(owner, keep...); err != nil {
		return err
	}
	for _, r := range some {
		if r.digest == r.to {
			continue
		}
		if err := dir.RenameGeneration(owner, r.digest, r.to, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// wipeState makes all maps what new ones are. again: none is on its way to another size.
func wipeState(room string) (again bool, err error) {
	pins, err := os.ReadDir(room)
	if err != nil {
		return false, err
	}
	for _, p := range pins {
		if strings.Contains(p.Name(), "-former") {
			return false, nil // on its way to another size
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(room, p.Name()), nil)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p.Name(), err)
		}
		if err = errors.Join(wipe(m), m.Close()); err != nil {
			return false, fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
	return true, nil
}

// wipe empties hashes, tries, queues and rings, and zeroes arrays. A map of another type is an error: directories that nobody lends
// again were not noticed for a day.
func wipe(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.LPMTrie, ebpf.HashOfMaps:
		return empty(m)
	case ebpf.Array:
		return zero(m, 1)
	case ebpf.PerCPUArray:
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return err
		}
		return zero(m, cpus)
	case ebpf.Queue:
		return pop(m)
	case ebpf.RingBuf:
		return drain(m)
	}
	return fmt.Errorf("nobody wrote how a map of type %s is emptied", m.Type())
}

func empty(m *ebpf.Map) error {
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // an LRU evicts by itself
			return err
		}
	}
}

// pop takes everything out of a queue, which has no keys.
func pop(m *ebpf.Map) error {
	value := make([]byte, m.ValueSize())
	for {
		err := m.LookupAndDelete(nil, &value)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// zero writes all elements in one call: arrays take batches since kernel 5.6, those per CPU since 5.13. The library's own call
// encodes element after element, which takes as long as a small program's verification.
func zero(m *ebpf.Map, cpus int) error {
	const update = 26 // BPF_MAP_UPDATE_BATCH
	keys := make([]uint32, m.MaxEntries())
	for i := range keys {
		keys[i] = uint32(i)
	}
	size := int(m.ValueSize())
	if cpus > 1 {
		size = (size + 7) / 8 * 8 * cpus
	}
	values := make([]byte, size*len(keys))
	attr := struct { // of union bpf_attr
		_                   structs.HostLayout
		inBatch, outBatch   uint64
		keys, values        unsafe.Pointer
		count, fd           uint32
		elemFlags, mapFlags uint64
	}{keys: unsafe.Pointer(&keys[0]), values: unsafe.Pointer(&values[0]), count: uint32(len(keys)), fd: uint32(m.FD())}
	_, _, errno := unix.Syscall(unix.SYS_BPF, update, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(m)
	if errno != 0 {
		return errno
	}
	return nil
}

// drain reads what nobody has read.
func drain(m *ebpf.Map) error {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.SetDeadline(time.Now())
	var record ringbuf.Record
	for err == nil {
		err = reader.ReadInto(&record)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
