package classify

import (
	"math/bits"
	"net/netip"

	"sluice/xdp/abi"
)

const (
	maxNodeBits = 21 // 16 MB
	// From so many runs on an IPv4 table has a root that leaves no more than the twelve bits of a pair: a load less for
	// most addresses, and 8 MB.
	manyRuns  = 1 << 16
	runWords6 = 3
)

// reference returns one of a kind.
func reference(kind abi.RefKind, rest uint64) uint64 { return uint64(kind)<<abi.RefKindShift | rest }

func kindOf(ref uint64) abi.RefKind { return abi.RefKind(ref >> abi.RefKindShift) }

func valueRef(value uint32) uint64 { return reference(abi.RefIsValue, uint64(value)<<24|uint64(value)) }

// prefixTable makes the words of a prefix table (abi.h).
type prefixTable struct {
	words []uint64
	v6    bool
	depth int // nodes on the longest way
	fresh int // words when it was made; 0: those that there are

	values []uint32 // by class, while it is made
}

// newPrefixTable lays out an address space. values are what a packet gets to know of a class, by class.
func newPrefixTable(space []boundary, v6 bool, values []uint32) *prefixTable {
	t := &prefixTable{words: make([]uint64, 1, 1+2*len(space)), v6: v6, values: values}
	t.words[0], t.depth = t.ref(space, key{}, 0)
	t.values = nil
	return t
}

func (t *prefixTable) length() int {
	if t.v6 {
		return 128
	}
	return 32
}

// ref writes what chooses among runs by the bits of a key behind the first used ones, all of which equal base's. The
// first run may begin before base, the others begin behind it.
func (t *prefixTable) ref(runs []boundary, base key, used int) (ref uint64, depth int) {
	if len(runs) == 1 {
		return valueRef(t.values[runs[0].class]), 0
	}
	if pair, ok := t.pair(runs, base, used); ok {
		return pair, 0
	}
	if len(runs) <= abi.MaxTableRuns {
		return t.write(runs), 0
	}
	width := t.nodeBits(runs, base, used)
	at := len(t.words)
	t.words = append(t.words, make([]uint64, 1<<width)...)
	i := 0
	for slot := range uint64(1) << width {
		first := base.plus(slot, used+width)
		last := first.last(used + width)
		for i+1 < len(runs) && runs[i+1].start.compare(first) <= 0 {
			i++
		}
		end := i + 1
		for end < len(runs) && runs[end].start.compare(last) <= 0 {
			end++
		}
		child, below := t.ref(runs[i:end], first, used+width)
		t.words[at+int(slot)] = child
		depth = max(depth, below)
		i = end - 1
	}
	return reference(abi.RefIsNode, uint64(width)<<40|uint64(128-used-width)<<32|uint64(at)), depth + 1
}

// plus sets the bits that end at the given one to n.
func (a key) plus(n uint64, end int) key {
	if end <= 64 {
		a.hi += n << (64 - end)
	} else {
		a.lo += n << (128 - end)
	}
	return a
}

// last is the last key that has the first bits of a.
func (a key) last(bits int) key { return member{first: a, bits: uint8(bits)}.last() }

// write appends runs, IPv4 ones so that a line holds them all.
func (t *prefixTable) write(runs []boundary) uint64 {
	if n := len(t.words) % lineWords; !t.v6 && n+len(runs) > lineWords {
		t.words = append(t.words, make([]uint64, lineWords-n)...)
	}
	ref := reference(abi.RefIsRuns, uint64(len(runs))<<32|uint64(len(t.words)))
	for _, r := range runs {
		if t.v6 {
			t.words = append(t.words, r.start.hi, r.start.lo, uint64(t.values[r.class]))
		} else {
			t.words = append(t.words, r.start.hi|uint64(t.values[r.class]))
		}
	}
	return ref
}

// pair makes a reference of two values where the runs are one prefix and what is around it.
func (t *prefixTable) pair(runs []boundary, base key, used int) (uint64, bool) {
	if len(runs) > 3 || len(runs) == 3 && runs[0].class != runs[2].class || !t.v6 && used < 32-abi.RefInnerBits {
		return 0, false
	}
	end := base.last(used)
	if len(runs) == 3 {
		end = runs[2].start.before()
	}
	inner, outer, first := runs[1].class, runs[0].class, runs[1].start
	length, ok := prefixLength(first, end)
	if !ok && len(runs) == 2 { // perhaps what is before it is one
		inner, outer, first = outer, inner, base
		length, ok = prefixLength(base, runs[1].start.before())
	}
	if !ok {
		return 0, false
	}
	inner, outer = t.values[inner], t.values[outer]
	if t.v6 {
		t.words = append(t.words, first.hi, first.lo, uint64(length)<<48|uint64(inner)<<24|uint64(outer))
		return reference(abi.RefIsPair, uint64(len(t.words)-runWords6)), true
	}
	prefix := (first.hi>>32&(1<<abi.RefInnerBits-1))<<1 | 1<<(32-length)
	return reference(abi.RefIsPair, prefix<<48|uint64(inner)<<24|uint64(outer)), true
}

func (a key) before() key {
	if a.lo == 0 {
		a.hi--
	}
	a.lo--
	return a
}

// prefixLength says whether first to last is a prefix, and how long.
func prefixLength(first, last key) (int, bool) {
	length := 128
	if hi := first.hi ^ last.hi; hi != 0 {
		length = bits.LeadingZeros64(hi)
	} else if lo := first.lo ^ last.lo; lo != 0 {
		length = 64 + bits.LeadingZeros64(lo)
	}
	m := member{first: first, bits: uint8(length)}
	return length, m.last() == last && m.first.masked(length) == first
}

func (a key) masked(bits int) key {
	mask := member{bits: uint8(bits)}.hostMask()
	return key{a.hi &^ mask.hi, a.lo &^ mask.lo}
}

// nodeBits chooses the size of a node: about as many references as there are runs, unless most of them would say the
// same because the runs lie close together: then few bits first.
func (t *prefixTable) nodeBits(runs []boundary, base key, used int) int {
	most := t.length() - used
	if used < 64 {
		most = min(most, 64-used) // a node's bits do not cross from one half into the other
	}
	if !t.v6 && used == 0 && len(runs) >= manyRuns {
		return max(32-abi.RefInnerBits, min(bits.Len(uint(len(runs)))-1, maxNodeBits))
	}
	var parting [129]int // pairs of neighbours by the bit at which they part
	for i := 1; i < len(runs); i++ {
		a, b := runs[i-1].start, runs[i].start
		if a.compare(base) < 0 {
			continue
		}
		at := bits.LeadingZeros64(a.hi ^ b.hi)
		if at == 64 {
			at += bits.LeadingZeros64(a.lo ^ b.lo)
		}
		parting[at-used]++
	}
	best := 4
	if len(runs) >= 1<<10 {
		best = 8
	}
	distinct := 1
	for width := 1; width <= min(bits.Len(uint(len(runs)))-1, maxNodeBits, most); width++ {
		distinct += parting[width-1]
		if width > best && 1<<width <= 2*distinct {
			best = width
		}
	}
	return min(best, most)
}

// lookup returns the value of an address as prefix.h does.
func (t *prefixTable) lookup(a netip.Addr) uint32 {
	k := keyOf(a)
	ref := t.words[0]
	for kindOf(ref) == abi.RefIsNode {
		shift, width, half := ref>>32&0xff, ref>>40&0xff, k.lo
		if shift >= 64 {
			half = k.hi
		}
		ref = t.words[uint64(uint32(ref))+half>>(shift&63)&(1<<width-1)]
	}
	at := uint64(uint32(ref))
	switch kindOf(ref) {
	case abi.RefIsValue:
		return uint32(ref & 0xffffff)
	case abi.RefIsPair:
		if t.v6 {
			return pairValue(k, key{t.words[at], t.words[at+1]}, t.words[at+2])
		}
		return pairValue4(k, ref)
	}
	count, first := ref>>32&0xffff, uint64(0)
	for half := uint64(abi.MaxTableRuns / 2); half > 0; half /= 2 {
		if first+half < count && t.runStart(at, first+half).compare(k) <= 0 {
			first += half
		}
	}
	if t.v6 {
		return uint32(t.words[at+first*runWords6+2])
	}
	return uint32(t.words[at+first])
}

func (t *prefixTable) runStart(at, n uint64) key {
	if t.v6 {
		return key{t.words[at+n*runWords6], t.words[at+n*runWords6+1]}
	}
	return key{hi: t.words[at+n] &^ 0xffffffff}
}

func pairValue(k, prefix key, meta uint64) uint32 {
	if k.masked(int(meta>>48)) == prefix {
		return uint32(meta >> 24 & 0xffffff)
	}
	return uint32(meta & 0xffffff)
}

func pairValue4(k key, ref uint64) uint32 {
	prefix := ref >> 48 & (1<<(abi.RefInnerBits+1) - 1)
	ip := k.hi >> 32 & (1<<abi.RefInnerBits - 1) << 1
	if (ip^prefix)&^(prefix^(prefix-1)) != 0 {
		return uint32(ref & 0xffffff)
	}
	return uint32(ref >> 24 & 0xffffff)
}

// steps bounds the loads of one lookup.
func (t *prefixTable) steps() int { return 1 + t.depth + runWords6*bits.Len(abi.MaxTableRuns) }
