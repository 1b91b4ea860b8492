package config

import (
	"bytes"
	"net/netip"
	"slices"
)

// Of a set file of a million lines few change at a time. What its contents have in common, at both ends, with those that were
// read before is not read again: of what stands between, the former lines go and those of now come.

// follow makes the prefixes of f out of those of contents before. False: f has to be read as a whole, perhaps for what is
// wrong with it, or because it would be as much work.
func (f *setFile) follow(before *setFile) bool {
	if !before.good || before.lines != len(before.prefixes) || len(f.contents) > maxSetFile { // a prefix that stands there twice may stay, once
		return false
	}
	former, now := changedLines(before.contents, f.contents)
	if len(former)+len(now) > len(f.contents)/2 || bytes.HasPrefix(now, []byte(byteOrderMark)) { // passed over at the beginning of a file only
		return false
	}
	r := newReport("")
	gone, come := r.setLines("", "", former), r.setLines("", "", now)
	f.lines = before.lines - len(gone) + len(come)
	if r.err() != nil || f.lines > maxSetPrefixes {
		return false
	}
	f.families = before.families | familiesOf(come)
	f.prefixes = Exchange(before.prefixes, sortedSet(gone), sortedSet(come))
	if len(gone) > 0 {
		f.families = familiesOf(f.prefixes) // the last of one may be gone
	}
	f.good = true
	return true
}

// changedLines are whole lines of both: what stands before them is the same, and what stands behind.
func changedLines(former, now []byte) (_, _ []byte) {
	head, tail := commonEnds(former, now)
	head = bytes.LastIndexByte(former[:head], '\n') + 1
	if end := bytes.IndexByte(former[len(former)-tail:], '\n'); end >= 0 {
		tail -= end + 1
	} else {
		tail = 0
	}
	return former[head : len(former)-tail], now[head : len(now)-tail]
}

// Exchange is an ascending list without some of its elements and with others, both ascending: a new one, in which each stands once.
func Exchange(list, gone, come []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, max(len(list)-len(gone), 0)+len(come))
	for len(gone)+len(come) > 0 {
		leaves := len(come) == 0 || len(gone) > 0 && ComparePrefixes(gone[0], come[0]) <= 0
		var at netip.Prefix
		if leaves {
			at, gone = gone[0], gone[1:]
		} else {
			at, come = come[0], come[1:]
		}
		n, found := slices.BinarySearchFunc(list, at, ComparePrefixes)
		out, list = append(out, list[:n]...), list[n:] // what stays is copied in few pieces
		if found {
			list = list[1:] // it goes, or comes a second time
		}
		if !leaves {
			out = append(out, at)
		}
	}
	return append(out, list...)
}

// commonEnds returns how many bytes two texts have in common at their beginnings, and then at their ends.
func commonEnds(a, b []byte) (head, tail int) {
	const block = 4096
	all := min(len(a), len(b))
	for head+block <= all && bytes.Equal(a[head:head+block], b[head:head+block]) {
		head += block
	}
	for head < all && a[head] == b[head] {
		head++
	}
	all -= head
	atEnd := func(of []byte, n int) []byte { return of[len(of)-n-block : len(of)-n] }
	for tail+block <= all && bytes.Equal(atEnd(a, tail), atEnd(b, tail)) {
		tail += block
	}
	for tail < all && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}
