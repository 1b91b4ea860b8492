package classify

import (
	"math/bits"
	"slices"

	"sluice/xdp/abi"
)

// bucketKey says which leaf, as struct bucket_slot does.
type bucketKey struct{ kind, src, dst uint32 }

func (k bucketKey) hash() uint32 {
	h := (uint64(k.src)<<32 | uint64(k.dst)) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h = (h + uint64(k.kind)) * 0xd6e8feb86659fd93
	return uint32(h >> 32)
}

func keyOfSlot(s *abi.BucketSlot) bucketKey { return bucketKey{uint32(s.Kind), s.Src, s.Dst} }

// newBuckets makes the hash table of slots with distinct keys: a quarter to half full, and larger where one would overflow
// too far. probes is the longest way to a slot.
func newBuckets(slots []abi.BucketSlot) (buckets []abi.Bucket, probes int) {
	size := 1
	if n := len(slots); n > 0 {
		size = 1 << bits.Len(uint(n-1))
	}
	for ; ; size *= 2 {
		buckets, probes = make([]abi.Bucket, size), 0
		for i := range slots {
			probes = max(probes, insert(buckets, &slots[i]))
		}
		if probes <= abi.MaxBucketProbes {
			return buckets, probes
		}
	}
}

func insert(buckets []abi.Bucket, s *abi.BucketSlot) (probes int) {
	at := keyOfSlot(s).hash()
	for {
		probes++
		b := &buckets[at&uint32(len(buckets)-1)]
		for i := range b.Slot {
			if b.Slot[i].Leaf == 0 {
				b.Slot[i] = *s
				return probes
			}
		}
		at++
	}
}

// slot makes that of a leaf, with its head.
func (c *compiler) slot(key bucketKey, leaf uint32, entries []uint32) abi.BucketSlot {
	s := abi.BucketSlot{Kind: uint16(key.kind), Src: key.src, Dst: key.dst, Leaf: leaf, First: entries[0]}
	r := &c.tables.Rules[entries[0]]
	if !decides(r, abi.HeadRuleFlags) {
		return s
	}
	s.ID, s.Ports, s.SourcePorts, s.Protocol = r.ID, r.Ports, r.SourcePorts, r.Protocol
	s.Flags = uint8(r.Flags&abi.HeadRuleFlags) | abi.HeadHere
	if len(entries) == 1 {
		s.Flags |= abi.HeadAlone
	}
	if r.Flags&abi.RulePlain != 0 {
		s.Flags |= abi.HeadPlain
		if r.Action == uint8(Drop) {
			s.Flags |= abi.HeadDrops
		}
	}
	return s
}

// findSlot returns that of a key, or nil.
func (t *Tables) findSlot(k bucketKey) *abi.BucketSlot {
	at := k.hash()
	for range abi.MaxBucketProbes {
		slots := &t.Buckets[at&uint32(len(t.Buckets)-1)].Slot
		for i := range slots {
			switch s := &slots[i]; {
			case s.Leaf == 0:
				return nil
			case keyOfSlot(s) == k:
				return s
			}
		}
		at++
	}
	return nil
}

// sorter collects the entries of leaves by their keys. Entries come in ascending order.
type sorter struct {
	keys  []bucketKey
	known map[bucketKey]int32
	last  []int32 // of each key: its latest part
	parts []part
}

// part is entries first to end, without end, of a leaf.
type part struct {
	first, end uint32
	before     int32 // the part of the same leaf before it, or none
}

func newSorter() *sorter { return &sorter{known: map[bucketKey]int32{}} }

func (s *sorter) add(key bucketKey, first, end uint32) {
	n, ok := s.known[key]
	if !ok {
		n = int32(len(s.keys))
		s.known[key] = n
		s.keys, s.last = append(s.keys, key), append(s.last, none)
	}
	s.parts = append(s.parts, part{first, end, s.last[n]})
	s.last[n] = int32(len(s.parts) - 1)
}

// entries returns those of a key, ascending.
func (s *sorter) entries(n int) []uint32 {
	var out []uint32
	for at := s.last[n]; at != none; at = s.parts[at].before {
		for e := s.parts[at].end; e > s.parts[at].first; e-- {
			out = append(out, e-1)
		}
	}
	slices.Reverse(out)
	return out
}
