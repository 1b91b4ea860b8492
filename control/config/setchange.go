package config

import (
	"bytes"
	"slices"
	"sort"
)

// Of a set file of a million lines few change at a time. What its contents have in common, at both ends, with those that were
// read before is not read again: marks say which prefixes stand there.

// markEvery is how many prefixes stand between two marks.
const markEvery = 1024

// mark is where a line begins, in bytes, and how many prefixes stand before it.
type mark struct{ offset, prefixes int }

// follow makes the prefixes of f out of those of contents before. False: f has to be read as a whole, perhaps for what is
// wrong with it.
func (f *setFile) follow(before *setFile) bool {
	if !before.good || len(before.marks) == 0 || len(f.contents) > maxSetFile {
		return false
	}
	head, tail := commonEnds(before.contents, f.contents)
	longer := len(f.contents) - len(before.contents)
	// A mark up to the end of the head stands behind the same newline in both; one in the tail does only where the newline is in it.
	first := sort.Search(len(before.marks), func(i int) bool { return before.marks[i].offset > head }) - 1
	next := sort.Search(len(before.marks), func(i int) bool { return before.marks[i].offset > len(before.contents)-tail })
	if first < 0 {
		return false
	}
	from, end, kept := before.marks[first], len(f.contents), len(before.prefixes)
	if next < len(before.marks) {
		end, kept = before.marks[next].offset+longer, before.marks[next].prefixes
	}
	text := f.contents[from.offset:end]
	r := newReport("")
	fresh, marks := r.setLines("", "", text)
	if r.err() != nil || bytes.HasPrefix(text, []byte(byteOrderMark)) { // which is passed over at the beginning of a file only
		return false
	}
	f.prefixes = slices.Concat(before.prefixes[:from.prefixes], fresh, before.prefixes[kept:])
	if len(f.prefixes) > maxSetPrefixes {
		return false
	}
	f.marks = slices.Clone(before.marks[:first+1])
	for _, m := range marks[min(1, len(marks)):] { // the first is there
		f.marks = append(f.marks, mark{from.offset + m.offset, from.prefixes + m.prefixes})
	}
	for _, m := range before.marks[next:] {
		f.marks = append(f.marks, mark{m.offset + longer, m.prefixes + len(f.prefixes) - len(before.prefixes)})
	}
	if f.families = before.families | familiesOf(fresh); f.families == bothFamilies {
		f.families = familiesOf(f.prefixes) // the last of one may be gone
	}
	f.good = true
	return true
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
