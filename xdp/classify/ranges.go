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
	manyRuns = 1 << 16
)

// reference returns one of a kind.
func reference(kind abi.RefKind, rest uint64) uint64 { return uint64(kind)<<abi.RefKindShift | rest }

func kindOf(ref uint64) abi.RefKind { return abi.RefKind(ref >> abi.RefKindShift) }

func valueRef(value uint32) uint64 { return reference(abi.RefIsValue, uint64(value)) }

// run holds from start on, until the next one: a value, or of the upper half of an IPv6 address a reference to go on with.
type run struct{ start, ref uint64 }

// prefixTable makes the words of a prefix table (abi.h).
type prefixTable struct {
	words []uint64
	v6    bool
	depth int // nodes on the longest way, both halves
}

// newPrefixTable lays out an address space. value gives what a packet gets to know of a class.
func newPrefixTable(space []boundary, v6 bool, value func(class uint32) uint32) *prefixTable {
	t := &prefixTable{words: make([]uint64, 1, 1+3*len(space)), v6: v6}
	refOf := func(class uint32) uint64 { return valueRef(value(class)) }
	runs := make([]run, 0, len(space))
	low := 0
	for i := 0; i < len(space); {
		hi := space[i].start.hi
		end := i + 1
		for end < len(space) && space[end].start.hi == hi {
			end++
		}
		if end == i+1 && space[i].start.lo == 0 {
			runs = append(runs, run{hi, refOf(space[i].class)})
			i = end
			continue
		}
		var within []run // the lower halves behind hi
		if space[i].start.lo != 0 {
			within = append(within, run{0, refOf(space[i-1].class)})
		}
		for ; i < end; i++ {
			within = append(within, run{space[i].start.lo, refOf(space[i].class)})
		}
		ref, depth := t.ref(within, 0, 0)
		low = max(low, depth)
		runs = append(runs, run{hi, ref})
		if hi != ^uint64(0) && (end == len(space) || space[end].start.hi != hi+1) {
			runs = append(runs, run{hi + 1, refOf(space[end-1].class)})
		}
	}
	t.words[0], t.depth = t.ref(runs, 0, 0)
	t.depth += low
	return t
}

// ref writes what chooses among runs by the bits of a key behind the first used ones, all of which equal base's. The
// first run may begin before base.
func (t *prefixTable) ref(runs []run, base uint64, used int) (ref uint64, depth int) {
	if len(runs) == 1 && kindOf(runs[0].ref) == abi.RefIsValue {
		return runs[0].ref, 0
	}
	if !t.v6 {
		if pair, ok := pairOf(runs, base, used); ok {
			return pair, 0
		}
	}
	if len(runs) <= abi.MaxTableRuns {
		return t.write(runs), 0
	}
	width := nodeBits(runs, base, used)
	if !t.v6 && used == 0 && len(runs) >= manyRuns {
		width = max(width, 32-abi.RefInnerBits)
	}
	shift := 64 - used - width
	at := len(t.words)
	t.words = append(t.words, make([]uint64, 1<<width)...)
	i := 0
	for slot := range uint64(1) << width {
		first := base + slot<<shift
		last := first + 1<<shift - 1
		for i+1 < len(runs) && runs[i+1].start <= first {
			i++
		}
		end := i + 1
		for end < len(runs) && runs[end].start <= last {
			end++
		}
		child, below := t.ref(runs[i:end], first, used+width)
		t.words[at+int(slot)] = child
		depth = max(depth, below)
		i = end - 1
	}
	return reference(abi.RefIsNode, uint64(width)<<40|uint64(shift)<<32|uint64(at)), depth + 1
}

// pairOf makes a reference of both values where the runs are one prefix and what is around it.
func pairOf(runs []run, base uint64, used int) (uint64, bool) {
	const open = 32 - abi.RefInnerBits
	if used < open || len(runs) < 2 || len(runs) > 3 || len(runs) == 3 && runs[0].ref != runs[2].ref {
		return 0, false
	}
	size := uint64(1) << (32 - used) // of the slot, in addresses
	first := (runs[1].start - base) >> 32
	end := size
	if len(runs) == 3 {
		end = (runs[2].start - base) >> 32
	}
	inner, outer := runs[1].ref, runs[0].ref
	if length := end - first; length&(length-1) != 0 || first%length != 0 { // no prefix: perhaps what is before it is
		first, end, inner, outer = 0, first, outer, inner
		if len(runs) == 3 || end&(end-1) != 0 {
			return 0, false
		}
	}
	prefix := (base>>32&(1<<abi.RefInnerBits-1)+first)<<1 | (end - first)
	return reference(abi.RefIsPair, prefix<<48|inner&0xffffff<<24|outer&0xffffff), true
}

func valueOfPair(ref, key uint64) uint64 {
	prefix := ref >> 48 & (1<<(abi.RefInnerBits+1) - 1)
	ip := key >> 32 & (1<<abi.RefInnerBits - 1) << 1
	if (ip^prefix)&^(prefix^(prefix-1)) != 0 {
		return valueRef(uint32(ref & 0xffffff))
	}
	return valueRef(uint32(ref >> 24 & 0xffffff))
}

func (t *prefixTable) write(runs []run) uint64 {
	ref := uint64(len(runs))<<32 | uint64(len(t.words))
	for _, r := range runs {
		if t.v6 {
			t.words = append(t.words, r.start, r.ref)
		} else {
			t.words = append(t.words, r.start|r.ref&0xffffffff)
		}
	}
	return ref
}

// nodeBits chooses the size of a node: about as many references as there are runs, but not many for runs that lie close
// together, because most of the references would say the same.
func nodeBits(runs []run, base uint64, used int) int {
	var parting [65]int // pairs of neighbours by the bit at which they part
	for i := 1; i < len(runs); i++ {
		if runs[i-1].start >= base {
			parting[max(0, bits.LeadingZeros64(runs[i].start^runs[i-1].start)-used)]++
		}
	}
	least := 4
	if len(runs) >= 1<<10 {
		least = 8
	}
	best, distinct := least, 1
	for width := 1; width <= min(bits.Len(uint(len(runs)))-1, maxNodeBits); width++ {
		distinct += parting[width-1]
		if width > least && 1<<width <= 8*distinct {
			best = width
		}
	}
	return min(best, 64-used)
}

// lookup returns the value of an address as prefix.h does.
func (t *prefixTable) lookup(a netip.Addr) uint32 {
	k := keyOf(a)
	ref := t.half(t.words[0], k.hi)
	if kindOf(ref) != abi.RefIsValue {
		ref = t.half(ref, k.lo)
	}
	return uint32(ref)
}

func (t *prefixTable) half(ref, key uint64) uint64 {
	for kindOf(ref) == abi.RefIsNode {
		shift, width := ref>>32&0xff, ref>>40&0xff
		ref = t.words[uint64(uint32(ref))+key>>shift&(1<<width-1)]
	}
	switch kindOf(ref) {
	case abi.RefIsValue:
		return ref
	case abi.RefIsPair:
		return valueOfPair(ref, key)
	}
	at, count, first := int(uint32(ref)), int(ref>>32&0xffff), 0
	words := 1
	if t.v6 {
		words = 2
	} else {
		key |= 0xffffffff
	}
	for half := abi.MaxTableRuns / 2; half > 0; half /= 2 {
		if first+half < count && t.words[at+(first+half)*words] <= key {
			first += half
		}
	}
	if t.v6 {
		return t.words[at+first*2+1]
	}
	return valueRef(uint32(t.words[at+first]))
}

// steps bounds the loads of one lookup.
func (t *prefixTable) steps() int { return 1 + t.depth + 2*bits.Len(abi.MaxTableRuns) }
