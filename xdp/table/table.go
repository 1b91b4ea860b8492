// Package table brings compiled tables and the box's own addresses into the maps of include/sluice/maps.h. The XDP
// and the tc objects have the same maps, so both subsystems' loaders use it.
package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Names of the maps, as in maps.h.
const (
	SrcUp    = "src_up"
	DstUp    = "dst_up"
	Buckets  = "buckets"
	Leaves   = "leaves"
	Rules    = "rules"
	Verdicts = "verdicts"
	Policies = "policies"

	bucketMask = "bucket_mask" // a constant of the programs
)

// PrefixMap returns the name of the map of a prefix table.
func PrefixMap(table abi.ClassTable) string {
	return [abi.ClassTables]string{"src4", "dst4", "src6", "dst6"}[table]
}

// Names are those of every map that Fill writes.
func Names() []string {
	var names []string
	for _, c := range contents(&classify.Tables{}) {
		names = append(names, c.name)
	}
	return append(names, Policies)
}

// content is what goes into one map: elements of equal size, as the compiler of C lays them out.
type content struct {
	name  string
	count int
	size  int // bytes of one
	bytes []byte
}

func contentOf[T any](name string, values []T) content {
	var one T
	size := int(unsafe.Sizeof(one))
	return content{name, len(values), size, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*size)}
}

// contents are those of all maps that are filled through memory.
func contents(t *classify.Tables) []content {
	list := []content{
		contentOf(SrcUp, t.Up[0]), contentOf(DstUp, t.Up[1]),
		contentOf(Buckets, t.Buckets), contentOf(Leaves, t.Leaves), contentOf(Rules, t.Rules), contentOf(Verdicts, t.Verdicts),
	}
	for table := range abi.ClassTables {
		list = append(list, contentOf(PrefixMap(table), t.Words(table)))
	}
	return list
}

// Resize sets the sizes of the table maps to what t needs, at least 1, and the constants that follow from them. It
// fails where spec lacks one of the maps.
func Resize(spec *ebpf.CollectionSpec, t *classify.Tables) error {
	for _, c := range append(contents(t), content{name: Policies, count: len(t.Policies)}) {
		m, ok := spec.Maps[c.name]
		if !ok {
			return missing(c.name)
		}
		m.MaxEntries = uint32(max(c.count, 1))
	}
	mask, ok := spec.Variables[bucketMask]
	if !ok {
		return missing(bucketMask)
	}
	if err := mask.Set(uint32(max(len(t.Buckets), 1) - 1)); err != nil {
		return fmt.Errorf("%s: %w", bucketMask, err)
	}
	return nil
}

// Fill writes t into maps that Resize has sized, or that are larger. What they held before is gone.
func Fill(maps map[string]*ebpf.Map, t *classify.Tables) error { return new(Written).Fill(maps, t) }

// Wipe zeroes arrays that Fill does not write and that can be mapped.
func Wipe(maps map[string]*ebpf.Map, names ...string) error {
	for _, name := range names {
		m, ok := maps[name]
		if !ok {
			return missing(name)
		}
		if err := (content{name: name, size: int(m.ValueSize())}).copyTo(m); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return nil
}

// stride is the distance of elements in the kernel's arrays.
func stride(size int) int { return (size + 7) / 8 * 8 }

// copyTo writes through the map's memory: a million entries take some milliseconds, and by system calls half a second.
// The memory is unmapped again, or it would count as ours.
func (c content) copyTo(m *ebpf.Map) error {
	stride := stride(c.size)
	length := (stride*int(m.MaxEntries()) + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	memory, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map its %d bytes: %w", length, err)
	}
	if stride == c.size {
		overwrite(memory, c.bytes)
	} else {
		for i := range c.count {
			copy(memory[i*stride:], c.bytes[i*c.size:(i+1)*c.size])
		}
	}
	erase(memory[stride*c.count:])
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("unmap it: %w", err)
	}
	return nil
}

// overwrite copies the parts that differ. Most of a large table is what it was, and to compare costs half of a copy.
func overwrite(memory, with []byte) {
	const part = 1 << 14
	for len(with) > 0 {
		n := min(part, len(with))
		if !bytes.Equal(memory[:n], with[:n]) {
			copy(memory, with[:n])
		}
		memory, with = memory[n:], with[n:]
	}
}

// erase makes memory zero, as that of a new map is.
func erase(memory []byte) {
	var zero [1 << 14]byte
	for len(memory) > 0 {
		n := min(len(zero), len(memory))
		overwrite(memory[:n], zero[:n])
		memory = memory[n:]
	}
}

// FillArray writes an array from its beginning.
func FillArray[V any](maps map[string]*ebpf.Map, name string, values []V) error {
	m, ok := maps[name]
	if !ok {
		return missing(name)
	}
	if len(values) == 0 {
		return nil
	}
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil { // arrays take batches since kernel 5.6
		return fmt.Errorf("map %s: %w", name, err)
	}
	return nil
}

func missing(name string) error {
	return fmt.Errorf("the object has no %q: it was not built from this version's maps.h", name)
}

// SelfKey is the key of the map of own addresses: IPv4 as ::ffff:0:0/96, in network byte order (union addr).
func SelfKey(a netip.Addr) abi.Addr { return a.As16() }

// Clear empties hashes and tries, which what fills them wants to find empty.
func Clear(maps map[string]*ebpf.Map, names ...string) error {
	for _, name := range names {
		m, ok := maps[name]
		if !ok {
			return missing(name)
		}
		for {
			key, err := m.NextKeyBytes(nil)
			if err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
			if key == nil {
				break
			}
			if err := m.Delete(key); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
		}
	}
	return nil
}

// SelfBits has SELF_BIT of each address set.
func SelfBits(own []netip.Addr) (bits [abi.SelfBits / 64]uint64) {
	for _, a := range own {
		raw := a.As16()
		tail := binary.NativeEndian.Uint32(raw[8:]) ^ binary.NativeEndian.Uint32(raw[12:])
		bit := tail * 0x9e3779b1 >> 24
		bits[bit/64] |= 1 << (bit % 64)
	}
	return bits
}

// FillSelf writes addresses into the map self, or into another of its kind. They may repeat.
func FillSelf(m *ebpf.Map, own []netip.Addr) error {
	for _, a := range own {
		if err := m.Put(SelfKey(a), uint8(1)); err != nil {
			return fmt.Errorf("map of own addresses: %s: %w", a, err)
		}
	}
	return nil
}
