package classify

import (
	"sort"

	"sluice/xdp/abi"
)

// patched returns a table that is another one where regions are: nodes stay, and what they lead to is written anew behind
// the words that there are. It takes regions that are few, and values that changed in them alone.
func (t *prefixTable) patched(space []boundary, regions []region, values []uint32) *prefixTable {
	out := &prefixTable{words: make([]uint64, len(t.words), len(t.words)+len(t.words)/64+1024), v6: t.v6, depth: t.depth, values: values}
	copy(out.words, t.words)
	for _, r := range regions {
		out.words[0] = out.patch(out.words[0], space, key{}, 0, r, 0)
	}
	out.values = nil
	if out.fresh == 0 {
		out.fresh = len(t.words)
	}
	return out
}

// affords says whether patching regions is less than making all anew, and leaves no more than a quarter in waste.
func (t *prefixTable) affords(regions []region) bool {
	fresh := max(t.fresh, len(t.words))
	if t.fresh != 0 {
		fresh = t.fresh
	}
	slots := 0
	if kindOf(t.words[0]) == abi.RefIsNode {
		width := int(t.words[0] >> 40 & 0xff)
		for _, r := range regions {
			slots += 1 + slotOf(r.last, 0, width) - slotOf(r.first, 0, width)
		}
		return slots <= 1<<width/4+16 && len(t.words) <= fresh*5/4+1024
	}
	return len(t.words) <= fresh*5/4+64
}

// patch returns a reference that says of the runs what ref should, where they changed in a region only. Of the keys
// here the first used bits equal base's.
func (t *prefixTable) patch(ref uint64, runs []boundary, base key, used int, changed region, depth int) uint64 {
	if kindOf(ref) != abi.RefIsNode {
		fresh, below := t.ref(runs, base, used)
		t.depth = max(t.depth, depth+below)
		return fresh
	}
	width, at := int(ref>>40&0xff), int(uint32(ref))
	first := 0
	if base.compare(changed.first) < 0 {
		first = slotOf(changed.first, used, width)
	}
	for slot := first; slot < 1<<width; slot++ {
		begins := base.plus(uint64(slot), used+width)
		if begins.compare(changed.last) > 0 {
			break
		}
		of := runsOf(runs, begins, begins.last(used+width))
		child := t.patch(t.words[at+slot], of, begins, used+width, changed, depth+1)
		t.words[at+slot] = child
	}
	return ref
}

// slotOf is the bits of a key behind the used ones, which lie in one of its halves.
func slotOf(k key, used, width int) int {
	half := k.hi
	if used >= 64 {
		half, used = k.lo, used-64
	}
	return int(half << used >> (64 - width))
}

// runsOf are the runs that hold from first to last.
func runsOf(runs []boundary, first, last key) []boundary {
	from := sort.Search(len(runs), func(i int) bool { return runs[i].start.compare(first) > 0 }) - 1
	end := from + 1 + sort.Search(len(runs)-from-1, func(i int) bool { return runs[from+1+i].start.compare(last) > 0 })
	return runs[from:end]
}
