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

var allPorts = abi.PortRange{Last: 0xffff}

// slot makes that of a leaf, with its head.
func (c *compiler) slot(key bucketKey, leaf uint32, entries []uint32) abi.BucketSlot {
	s := abi.BucketSlot{Kind: uint16(key.kind), Src: key.src, Dst: key.dst, Leaf: leaf, First: entries[0]}
	r := &c.tables.Rules[entries[0]]
	if !decides(r, abi.HeadRuleFlags) {
		return s
	}
	s.ID, s.Ports, s.SourcePorts, s.Protocol = r.ID, allPorts, allPorts, r.Protocol
	if r.Flags&abi.RulePorts != 0 {
		s.Ports = r.Ports
	}
	if r.Flags&abi.RuleSourcePorts != 0 {
		s.SourcePorts = r.SourcePorts
	}
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
	known []int32 // hash table: number of a key and 1, or 0
	last  []int32 // of each key: its latest part
	parts []part
}

// part is entries first to end, without end, of a leaf.
type part struct {
	first, end uint32
	before     int32 // the part of the same leaf before it, or none
}

// newSorter takes the number of calls of add to come.
func newSorter(places int) *sorter {
	return &sorter{known: make([]int32, 1<<bits.Len(uint(2*places))), parts: make([]part, 0, places)}
}

func (s *sorter) add(key bucketKey, first, end uint32) {
	n := s.number(key)
	s.parts = append(s.parts, part{first, end, s.last[n]})
	s.last[n] = int32(len(s.parts) - 1)
}

func (s *sorter) number(key bucketKey) int32 {
	for at := key.hash(); ; at++ {
		known := &s.known[int(at)&(len(s.known)-1)]
		if *known == 0 {
			s.keys, s.last = append(s.keys, key), append(s.last, none)
			*known = int32(len(s.keys))
			return *known - 1
		}
		if s.keys[*known-1] == key {
			return *known - 1
		}
	}
}

// entries appends those of a key, ascending.
func (s *sorter) entries(to []uint32, n int) []uint32 {
	from := len(to)
	for at := s.last[n]; at != none; at = s.parts[at].before {
		for e := s.parts[at].end; e > s.parts[at].first; e-- {
			to = append(to, e-1)
		}
	}
	slices.Reverse(to[from:])
	return to
}
