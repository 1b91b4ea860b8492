package table

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/cilium/ebpf"
)

// walkBatch is how many entries one system call reads: a hash of half a million takes some 130.
const walkBatch = 4096

// Walk calls each for every entry of a hash. The bytes are each's only while it runs. The kernel reads bucket by bucket, so
// that what programs write meanwhile is seen or not, and no other entry is missed or comes twice.
func Walk(m *ebpf.Map, each func(key, value []byte) error) error {
	keys, keyBytes := elements(m.KeySize())
	values, valueBytes := elements(m.ValueSize())
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist) // which says that these were all
		if err != nil && !last {
			return fmt.Errorf("walk map %s: %w", m, err)
		}
		for i := range n {
			k, v := i*int(m.KeySize()), i*int(m.ValueSize())
			if err := each(keyBytes[k:k+int(m.KeySize())], valueBytes[v:v+int(m.ValueSize())]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// elements makes room for a batch of keys or values whose size is known to the kernel alone: as the slice of arrays that a
// batch wants, and as its bytes.
func elements(size uint32) (any, []byte) {
	array := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	slice := reflect.MakeSlice(reflect.SliceOf(array), walkBatch, walkBatch)
	return slice.Interface(), unsafe.Slice((*byte)(slice.UnsafePointer()), walkBatch*int(size))
}

// Read is the value that bytes of the kernel are. T is one of package abi's structs, whose layout is that of C.
func Read[T any](raw []byte) (v T) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), raw)
	return v
}

// bytesOf is the other way round.
func bytesOf[T any](v T) []byte {
	raw := make([]byte, unsafe.Sizeof(v))
	copy(raw, unsafe.Slice((*byte)(unsafe.Pointer(&v)), len(raw)))
	return raw
}
