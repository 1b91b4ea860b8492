package classify

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/xdp/abi"
)

// maxClasses is what the tables hold.
const maxClasses = abi.MaxClasses

// none stands for a list that a rule does not have.
const none = -1

// maxMemberships bounds the lists of all classes together, 4 bytes each: prefixes that nest in very many lists.
const maxMemberships = 1 << 24

// list is a list of prefixes that rules name, and the classes of the addresses in it, ascending.
type list struct {
	prefixes []netip.Prefix
	rule     *placed        // the first that names it, while sweeping
	uses     int            // by rules
	laid     []netip.Prefix // what the address space has of it
	unsorted bool           // laid is not in order
	families families
	classes  []uint32 // all that contain the list
	first    []uint32 // those whose parent does not
}

// class is a set of lists. The sets of its ancestors are subsets of its own: those of the prefixes around its own.
type class struct {
	lists  []uint32 // sorted
	parent int32    // none: class 0, of the addresses that are in no list
	added  []uint32 // those that the parent has not
}

// sliceID tells slices apart: rules that name the same set share its slice, and comparing a million prefixes costs more.
type sliceID struct {
	first  *netip.Prefix
	length int
}

// single is a list of one prefix: rules with the same prefix share a list even where each wrote it.
type single struct {
	first key
	bits  uint8
	v6    bool
}

// side is one direction, source or destination: lists and classes of both families.
type side struct {
	lists   []list
	byOne   map[single]int
	bySlice map[sliceID]int
	classes []class
	total   int // memberships

	byParent map[[2]uint32]uint32 // class by parent and group of lists that a prefix adds
	bySet    map[string]uint32    // class by its set
	groups   map[string]uint32
	sets     map[[2]int]*classSet
	byHash   map[uint64]uint32 // class by hashSet, made when it is first needed

	last struct { // answer of under: neighbours in a long list have the same
		parent, group, class uint32
		known                bool
	}
}

func newSide() *side {
	return &side{byOne: map[single]int{}, bySlice: map[sliceID]int{},
		classes:  []class{{parent: none}},
		byParent: map[[2]uint32]uint32{}, bySet: map[string]uint32{"": 0}, groups: map[string]uint32{}, sets: map[[2]int]*classSet{}}
}

// number returns the number of a list, none for an empty one.
func (s *side) number(prefixes []netip.Prefix, rule *placed) int {
	switch len(prefixes) {
	case 0:
		return none
	case 1:
		m := memberOf(prefixes[0], 0)
		return number(s, s.byOne, single{m.first, m.bits, prefixes[0].Addr().Is6()}, prefixes, rule)
	}
	return number(s, s.bySlice, sliceID{&prefixes[0], len(prefixes)}, prefixes, rule)
}

func number[K comparable](s *side, known map[K]int, key K, prefixes []netip.Prefix, rule *placed) int {
	n, ok := known[key]
	if !ok {
		n = len(s.lists)
		known[key] = n
		s.lists = append(s.lists, list{prefixes: prefixes, rule: rule, families: familiesOf(prefixes)})
	}
	return n
}

// under returns the class of a prefix that adds lists to what contains it. ok is false where the budget is used up.
func (s *side) under(parent uint32, added []uint32) (number uint32, ok bool) {
	group := added[0]
	if len(added) > 1 {
		text := setText(added)
		known, ok := s.groups[text]
		if !ok {
			known = uint32(len(s.lists) + len(s.groups))
			s.groups[text] = known
		}
		group = known
	}
	if s.last.known && s.last.parent == parent && s.last.group == group {
		return s.last.class, true
	}
	key := [2]uint32{parent, group}
	number, ok = s.byParent[key]
	if !ok {
		if number, ok = s.union(parent, added); !ok {
			return 0, false
		}
		s.byParent[key] = number
	}
	s.last.parent, s.last.group, s.last.class, s.last.known = parent, group, number, true
	return number, true
}

func (s *side) union(parent uint32, added []uint32) (uint32, bool) {
	have := s.classes[parent].lists
	var fresh []uint32
	for _, l := range added {
		if _, found := slices.BinarySearch(have, l); !found {
			fresh = append(fresh, l)
		}
	}
	if len(fresh) == 0 {
		return parent, true
	}
	set := make([]uint32, 0, len(have)+len(fresh))
	set = append(append(set, have...), fresh...)
	slices.Sort(set)
	text := setText(set)
	if number, ok := s.bySet[text]; ok {
		return number, true
	}
	s.total += len(set)
	if s.total > maxMemberships || len(s.classes) == abi.MaxClasses {
		return 0, false
	}
	number := uint32(len(s.classes))
	s.bySet[text] = number
	s.classes = append(s.classes, class{lists: set, parent: int32(parent), added: fresh})
	return number, true
}

func setText(set []uint32) string {
	text := make([]byte, 0, 4*len(set))
	for _, n := range set {
		text = binary.NativeEndian.AppendUint32(text, n)
	}
	return string(text)
}

// gather numbers the lists of all rules. direction is 0 for sources, 1 for destinations.
func (s *side) gather(rules []placed, direction int) {
	for i := range rules {
		s.enlist(&rules[i], direction)
	}
}

// enlist numbers the lists of a rule.
func (s *side) enlist(r *placed, direction int) {
	if r.empty {
		return
	}
	in, out := r.rule.directed(direction)
	r.lists[direction] = [2]int{s.number(in, r), s.number(out, r)}
	for _, n := range r.lists[direction] {
		if n != none {
			s.lists[n].uses++
		}
	}
}

// directed returns the lists of a direction: in, not in.
func (r *Rule) directed(direction int) (in, out []netip.Prefix) {
	if direction == 1 {
		return r.To, r.NotTo
	}
	return r.From, r.NotFrom
}

// classify tells the rules their classes, once all are known.
func (s *side) classify(rules []placed, direction int) {
	for i := range rules {
		s.tell(&rules[i], direction)
	}
}

// tell gives a rule its classes.
func (s *side) tell(r *placed, direction int) {
	set := s.set(r.lists[direction][0], r.lists[direction][1])
	if direction == 1 {
		r.dst = set
	} else {
		r.src = set
	}
}

// familiesIn are those of the list that says which addresses.
func (s *side) familiesIn(lists [2]int) families {
	if lists[0] == none {
		return bothFamilies
	}
	return s.lists[lists[0]].families
}

// index tells each list its classes, once all are known.
func (s *side) index() {
	sizes := make([][2]int, len(s.lists))
	total := [2]int{}
	for _, c := range s.classes {
		for _, l := range c.lists {
			sizes[l][0]++
		}
		for _, l := range c.added {
			sizes[l][1]++
		}
		total[0], total[1] = total[0]+len(c.lists), total[1]+len(c.added)
	}
	all, first := make([]uint32, total[0]), make([]uint32, total[1])
	for n, size := range sizes {
		s.lists[n].classes, all = all[:0:size[0]], all[size[0]:]
		s.lists[n].first, first = first[:0:size[1]], first[size[1]:]
	}
	for n, c := range s.classes {
		for _, l := range c.lists {
			s.lists[l].classes = append(s.lists[l].classes, uint32(n))
		}
		for _, l := range c.added {
			s.lists[l].first = append(s.lists[l].first, uint32(n))
		}
	}
}

// classSet is what a rule's two lists of a direction leave: the classes that match.
type classSet struct {
	any    bool // every class: nothing to look up and nothing to compare
	keyed  bool // there is a list that says which; else only one that says which not
	ranges []abi.ClassRange
	count  int
	first  []uint32       // classes below which the list begins
	not    bool           // some of those below first do not match
	hull   abi.ClassRange // around ranges and first
}

// set returns the classes in the list in (none: all) and not in the list out.
func (s *side) set(in, out int) *classSet {
	key := [2]int{in, out}
	if known, ok := s.sets[key]; ok {
		return known
	}
	set := &classSet{any: in == none && out == none, keyed: in != none, not: out != none}
	var without []uint32
	if out != none {
		without = s.lists[out].classes
	}
	if in == none {
		next := uint32(0)
		for _, c := range without {
			set.add(next, c)
			next = c + 1
		}
		set.add(next, abi.ClassNumber+1) // and those to come
	} else {
		set.first = s.lists[in].first
		for _, c := range s.lists[in].classes {
			for len(without) > 0 && without[0] < c {
				without = without[1:]
			}
			if len(without) == 0 || without[0] != c {
				set.add(c, c+1)
			}
		}
	}
	set.hull = set.around()
	s.sets[key] = set
	return set
}

func (c *classSet) around() abi.ClassRange {
	hull := abi.ClassRange{First: abi.NoClass}
	if n := len(c.ranges); n > 0 {
		hull = abi.ClassRange{First: c.ranges[0].First, Last: c.ranges[n-1].Last}
	}
	if n := len(c.first); n > 0 {
		hull = abi.ClassRange{First: min(hull.First, c.first[0]), Last: max(hull.Last, c.first[n-1])}
	}
	return hull
}

// add takes classes first to end, without end, which are not before those of earlier calls.
func (c *classSet) add(first, end uint32) {
	if first >= end {
		return
	}
	c.count += int(end - first)
	if n := len(c.ranges); n > 0 && c.ranges[n-1].Last+1 == first {
		c.ranges[n-1].Last = end - 1
		return
	}
	c.ranges = append(c.ranges, abi.ClassRange{First: first, Last: end - 1})
}

// ancestors returns for each class the nearest one above it that has a wide bucket, and the most that one has above it.
// nil: there are no wide buckets.
func (s *side) ancestors(wide []bool) (up []uint64, most int) {
	if !slices.Contains(wide, true) {
		return nil, 0
	}
	up = make([]uint64, len(s.classes))
	above := make([]int, len(s.classes))
	for n, c := range s.classes { // parents come first
		switch {
		case c.parent == none:
			up[n] = abi.NoClass
		case wide[c.parent]:
			up[n], above[n] = uint64(c.parent), above[c.parent]+1
		default:
			up[n], above[n] = up[c.parent], above[c.parent]
		}
		most = max(most, above[n])
	}
	return up, most
}
