package classify

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/xdp/abi"
)

// key is an address in host byte order. IPv4 stands in the upper half of hi, so that both families shift alike.
type key struct{ hi, lo uint64 }

func (a key) compare(b key) int {
	if n := cmp.Compare(a.hi, b.hi); n != 0 {
		return n
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a key) next() key {
	if a.lo++; a.lo == 0 {
		a.hi++
	}
	return a
}

func keyOf(a netip.Addr) key {
	if a.Is4() {
		raw := a.As4()
		return key{hi: uint64(binary.BigEndian.Uint32(raw[:])) << 32}
	}
	raw := a.As16()
	return key{binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])}
}

// member is a prefix of a list, masked.
type member struct {
	first key
	bits  uint8
	list  uint32
}

func memberOf(p netip.Prefix, list uint32) member {
	m := member{keyOf(p.Addr()), uint8(p.Bits()), list}
	m.first = m.first.masked(p.Bits())
	return m
}

// hostMask has the bits that the prefix leaves open. Of IPv4 all of lo is open, so that the last address's next is
// that of the family.
func (m member) hostMask() key {
	if m.bits <= 64 {
		return key{^uint64(0) >> m.bits, ^uint64(0)}
	}
	return key{0, ^uint64(0) >> (m.bits - 64)}
}

func (m member) last() key {
	mask := m.hostMask()
	return key{m.first.hi | mask.hi, m.first.lo | mask.lo}
}

// compareMembers puts a prefix behind all that contain it.
func compareMembers(a, b member) int {
	if n := a.first.compare(b.first); n != 0 {
		return n
	}
	if n := cmp.Compare(a.bits, b.bits); n != 0 {
		return n
	}
	return cmp.Compare(a.list, b.list)
}

// small lists are sorted together; long ones come sorted from a set, and only have to be merged.
const longList = 1024

// members returns the prefixes of a family, sorted.
func (s *side) members(v6 bool) []member {
	var small []member
	var sorted [][]member
	for n, l := range s.lists {
		into := small
		if len(l.prefixes) >= longList {
			into = make([]member, 0, len(l.prefixes))
		}
		for _, p := range l.prefixes {
			if p.Addr().Is6() == v6 {
				into = append(into, memberOf(p, uint32(n)))
			}
		}
		if len(l.prefixes) >= longList {
			sorted = append(sorted, sortMembers(into))
		} else {
			small = into
		}
	}
	sorted = append(sorted, sortMembers(small))
	for len(sorted) > 1 {
		var merged [][]member
		for i := 0; i+1 < len(sorted); i += 2 {
			merged = append(merged, merge(sorted[i], sorted[i+1]))
		}
		if len(sorted)%2 == 1 {
			merged = append(merged, sorted[len(sorted)-1])
		}
		sorted = merged
	}
	return sorted[0]
}

func sortMembers(m []member) []member {
	if !slices.IsSortedFunc(m, compareMembers) {
		slices.SortFunc(m, compareMembers)
	}
	return m
}

func merge(a, b []member) []member {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]member, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compareMembers(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// boundary is where a class begins to hold: until the next boundary.
type boundary struct {
	start key
	class uint32
}

// mark adds a boundary. Of two at one address the later holds; one that changes nothing is left out.
func mark(to []boundary, start key, class uint32) []boundary {
	if n := len(to); n > 0 && to[n-1].start == start {
		to = to[:n-1]
	}
	if n := len(to); n > 0 && to[n-1].class == class {
		return to
	}
	return append(to, boundary{start, class})
}

// endOf is the last key of both families.
var endOf = key{^uint64(0), ^uint64(0)}

// covering is a prefix around the one at hand.
type covering struct {
	last  key
	class uint32
}

// sweepFamily walks the prefixes of a family in order, with the stack of those that contain the current one, and returns the
// address space as boundaries; the first is at 0. prefixes is the number of distinct ones.
func (s *side) sweepFamily(v6 bool) (space []boundary, prefixes int, err error) {
	members := s.members(v6)
	end := endOf
	stack := []covering{{last: end}}
	space = append(make([]boundary, 0, len(members)+len(members)/2+1), boundary{})
	leave := func() {
		at := stack[len(stack)-1].last
		stack = stack[:len(stack)-1]
		if at != end {
			space = mark(space, at.next(), stack[len(stack)-1].class)
		}
	}
	var added []uint32
	for i := 0; i < len(members); prefixes++ {
		m := members[i]
		for stack[len(stack)-1].last.compare(m.first) < 0 {
			leave()
		}
		added = added[:0]
		for ; i < len(members) && members[i].first == m.first && members[i].bits == m.bits; i++ {
			if n := len(added); n == 0 || added[n-1] != members[i].list {
				added = append(added, members[i].list)
			}
		}
		class, ok := s.under(stack[len(stack)-1].class, added)
		if !ok {
			return nil, 0, &BudgetError{Rule: s.lists[m.list].rule.name(), What: "address classes", Needs: len(s.classes) + 1, Budget: abi.MaxClasses,
				Advice: "its prefixes nest with too many different lists of other rules; join lists into sets"}
		}
		space = mark(space, m.first, class)
		stack = append(stack, covering{m.last(), class})
	}
	for len(stack) > 1 {
		leave()
	}
	return space, prefixes, nil
}
