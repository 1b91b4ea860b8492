package classify

import (
	"net/netip"
	"sort"
)

// A set of a million prefixes comes in order: what it has around a few regions is looked up in it.

// fewRegions are looked up; for more of them all of a list is read.
const fewRegions = 64

// precedes orders prefixes by family, address and length, the shorter first.
func (m member) precedes(v6 bool, n member, n6 bool) bool {
	if v6 != n6 {
		return n6
	}
	if c := m.first.compare(n.first); c != 0 {
		return c < 0
	}
	return m.bits < n.bits
}

func inOrder(list []netip.Prefix) bool {
	var last member
	last6 := false
	for i, p := range list {
		m, v6 := memberOf(p, 0), p.Addr().Is6()
		if i > 0 && m.precedes(v6, last, last6) {
			return false
		}
		last, last6 = m, v6
	}
	return true
}

// stillInOrder says whether a list that was in order before these edits is in order.
func stillInOrder(list []netip.Prefix, edits []Edit) bool {
	for _, e := range edits {
		if !inOrder(list[max(0, e.Now-1):min(len(list), e.Now+e.Added+1)]) {
			return false
		}
	}
	return true
}

// meeting are the prefixes of a list in order that meet regions of prefixes of one family. What holds several regions is
// there as often.
func meeting(list []netip.Prefix, regions []region, v6 bool) (out []netip.Prefix) {
	search := func(m member) int {
		return sort.Search(len(list), func(i int) bool { return !memberOf(list[i], 0).precedes(list[i].Addr().Is6(), m, v6) })
	}
	for _, r := range regions {
		length, _ := prefixLength(r.first, r.last)
		for bits := range length {
			m := member{first: r.first.masked(bits), bits: uint8(bits)}
			if at := search(m); at < len(list) && list[at].Addr().Is6() == v6 && memberOf(list[at], 0) == m {
				out = append(out, list[at])
			}
		}
		for at := search(member{first: r.first, bits: uint8(length)}); at < len(list); at++ {
			if list[at].Addr().Is6() != v6 || memberOf(list[at], 0).first.compare(r.last) > 0 {
				break
			}
			out = append(out, list[at])
		}
	}
	return out
}
