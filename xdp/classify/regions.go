package classify

import (
	"net/netip"
	"slices"
	"sort"
)

// region is a range of addresses of a family, inclusive.
type region struct{ first, last key }

// relayer brings the address space of a direction up to date with lists that changed: only where they did.
type relayer struct {
	*swept
	dirty   [2][]region  // by family: where classes are others now
	touched map[int]bool // lists of which there are new classes, or another family
	known   int          // classes that there were
}

// mostRegions is how many prefixes may change before all is swept anew.
const mostRegions = 2048

// relay lays lists anew whose prefixes are not those that the space has. false: that is as much work as a sweep.
func (s *swept) relay(lists []int) (*relayer, bool) {
	r := &relayer{swept: s, touched: map[int]bool{}, known: len(s.classes)}
	left := mostRegions
	for _, n := range lists {
		l := &s.lists[n]
		target := l.prefixes
		if l.uses == 0 {
			target = nil
		}
		edits := Edits(l.laid, target, func(a, b *netip.Prefix) bool { return *a == *b })
		for _, e := range edits {
			left -= e.Removed + e.Added
			s.prefixes += e.Added - e.Removed
		}
		if left < 0 {
			return nil, false
		}
		l.unsorted = len(target) > 0 && (l.unsorted || !stillInOrder(target, edits))
		for family := range s.space {
			regions := changedRegions(l.laid, target, edits, family == 1)
			if len(regions) == 0 {
				continue
			}
			near := target
			if !l.unsorted && len(regions) <= fewRegions {
				near = meeting(target, regions, family == 1)
			}
			if !r.layList(family, uint32(n), near, regions) {
				return nil, false
			}
		}
		if have := familiesOf(target); target != nil && have != l.families {
			l.families = have
			r.touched[n] = true
		}
		l.laid = target
	}
	r.index()
	return r, true
}

// changedRegions are those of the prefixes that came or went, ascending, none within another.
func changedRegions(former, now []netip.Prefix, edits []Edit, v6 bool) []region {
	var out []region
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			if p.Addr().Is6() == v6 {
				m := memberOf(p, 0)
				out = append(out, region{m.first, m.last()})
			}
		}
	}
	for _, e := range edits {
		add(former[e.Before : e.Before+e.Removed])
		add(now[e.Now : e.Now+e.Added])
	}
	return widest(out)
}

// widest sorts regions of prefixes and leaves out those within others: two prefixes never overlap otherwise.
func widest(regions []region) []region {
	slices.SortFunc(regions, func(a, b region) int {
		if n := a.first.compare(b.first); n != 0 {
			return n
		}
		return b.last.compare(a.last)
	})
	out := regions[:0]
	for _, r := range regions {
		if n := len(out); n == 0 || out[n-1].last.compare(r.first) < 0 {
			out = append(out, r)
		}
	}
	return out
}

// layList changes the classes in regions to what they are with a list of these prefixes.
func (r *relayer) layList(family int, list uint32, prefixes []netip.Prefix, regions []region) bool {
	inside := make([][]region, len(regions))
	for _, p := range prefixes {
		if p.Addr().Is6() != (family == 1) {
			continue
		}
		m := memberOf(p, 0)
		last := m.last()
		// The first region that does not end before the prefix; those that it holds follow.
		at := sort.Search(len(regions), func(i int) bool { return regions[i].last.compare(m.first) >= 0 })
		for ; at < len(regions) && regions[at].first.compare(last) <= 0; at++ {
			to := region{m.first, last}
			if to.first.compare(regions[at].first) < 0 {
				to.first = regions[at].first
			}
			if to.last.compare(regions[at].last) > 0 {
				to.last = regions[at].last
			}
			inside[at] = append(inside[at], to)
		}
	}
	for i := range regions {
		if !r.layRegion(family, list, regions[i], widest(inside[i])) {
			return false
		}
	}
	return true
}

// layRegion changes the classes in one region: the list holds inside, and nowhere else in it.
func (r *relayer) layRegion(family int, list uint32, of region, inside []region) bool {
	space := r.space[family]
	from := sort.Search(len(space), func(i int) bool { return space[i].start.compare(of.first) > 0 }) - 1
	end := sort.Search(len(space), func(i int) bool { return space[i].start.compare(of.last) > 0 })
	t := transition{side: r.side, list: list, with: map[uint32]uint32{}, without: map[uint32]uint32{}}
	if len(inside) > 0 {
		t.base = t.smallest(space[from:end])
	}
	lo := from + 1
	if space[from].start == of.first {
		lo = from
	}
	out := make([]boundary, 0, end-lo+2*len(inside)+2)
	if lo > 0 {
		out = append(out, space[lo-1])
	}
	for i := from; i < end; i++ {
		piece := region{space[i].start, of.last}
		if piece.first.compare(of.first) < 0 {
			piece.first = of.first
		}
		if i+1 < end {
			piece.last = space[i+1].start.before()
		}
		for piece.first.compare(piece.last) <= 0 {
			for len(inside) > 0 && inside[0].last.compare(piece.first) < 0 {
				inside = inside[1:]
			}
			part, in := piece, false
			if len(inside) > 0 && inside[0].first.compare(piece.last) <= 0 {
				if in = inside[0].first.compare(piece.first) <= 0; !in {
					part.last = inside[0].first.before()
				} else if inside[0].last.compare(part.last) < 0 {
					part.last = inside[0].last
				}
			}
			class, ok := t.to(space[i].class, in)
			if !ok {
				return false
			}
			out = mark(out, part.first, class)
			if part.last.compare(of.last) == 0 {
				break // its next may be that of the family
			}
			piece.first = part.last.next()
		}
	}
	hi := end
	if of.last != endOf && (end == len(space) || space[end].start != of.last.next()) {
		out = mark(out, of.last.next(), space[end-1].class)
	} else if end < len(space) && space[end].class == out[len(out)-1].class {
		hi++
	}
	if lo > 0 {
		lo--
	}
	r.dirty[family] = append(r.dirty[family], of)
	r.space[family] = slices.Replace(space, lo, hi, out...)
	return true
}

// index tells the lists the classes that are new.
func (r *relayer) index() {
	for n := r.known; n < len(r.classes); n++ {
		c := &r.classes[n]
		for _, l := range c.lists {
			r.lists[l].classes = append(r.lists[l].classes, uint32(n))
			r.touched[int(l)] = true
		}
		for _, l := range c.added {
			r.lists[l].first = append(r.lists[l].first, uint32(n))
		}
	}
	for key := range r.sets {
		if key[0] != none && r.touched[key[0]] || key[1] != none && r.touched[key[1]] {
			delete(r.sets, key)
		}
	}
	r.flags = append(r.flags, make([]uint32, len(r.classes)-r.known)...)
	r.wide = append(r.wide, make([]bool, len(r.classes)-r.known)...)
}

// transition finds the classes that addresses go to when a list takes them in or lets them go.
type transition struct {
	*side
	list          uint32
	base          uint32 // around all others in the region
	with, without map[uint32]uint32
}

func (t *transition) to(class uint32, in bool) (uint32, bool) {
	known := t.without
	if in {
		known = t.with
	}
	if to, ok := known[class]; ok {
		return to, true
	}
	var to uint32
	var ok bool
	if in {
		to, ok = t.join(class)
	} else {
		to, ok = t.leave(class)
	}
	known[class] = to
	return to, ok
}

// smallest is the class in the fewest lists: the one around the others, where any of them is.
func (t *transition) smallest(pieces []boundary) uint32 {
	best := pieces[0].class
	for _, p := range pieces {
		if len(t.classes[p.class].lists) < len(t.classes[best].lists) {
			best = p.class
		}
	}
	return best
}

// join returns the class of the same lists and this one. Below the base it is below the base's, as if prefixes had been
// swept: so a list begins at few classes.
func (t *transition) join(class uint32) (uint32, bool) {
	have := t.classes[class].lists
	at, found := slices.BinarySearch(have, t.list)
	if found {
		return class, true
	}
	set := slices.Insert(slices.Clone(have), at, t.list)
	if known, ok := t.find(set); ok {
		return known, true
	}
	parent := class
	if class != t.base && t.isBelow(class, t.base) {
		var ok bool
		if parent, ok = t.to(uint32(t.classes[class].parent), true); !ok {
			return 0, false
		}
	}
	return t.make(set, parent)
}

// leave returns the class of the same lists without this one.
func (t *transition) leave(class uint32) (uint32, bool) {
	have := t.classes[class].lists
	at, found := slices.BinarySearch(have, t.list)
	if !found {
		return class, true
	}
	set := slices.Delete(slices.Clone(have), at, at+1)
	if known, ok := t.find(set); ok {
		return known, true
	}
	parent, ok := t.to(uint32(t.classes[class].parent), false)
	if !ok {
		return 0, false
	}
	return t.make(set, parent)
}

func (t *transition) isBelow(class, above uint32) bool {
	for at := t.classes[class].parent; at != none; at = t.classes[at].parent {
		if uint32(at) == above {
			return true
		}
	}
	return false
}

// hashSet has an element added or taken by adding or subtracting; sets that differ may share one.
func hashSet(set []uint32) (sum uint64) {
	for _, n := range set {
		h := (uint64(n) + 1) * 0x9e3779b97f4a7c15
		sum += (h ^ h>>29) * 0xbf58476d1ce4e5b9
	}
	return sum
}

// find returns the class of a set. One whose hash another class has is not found, and becomes a class twice.
func (s *side) find(set []uint32) (uint32, bool) {
	if s.byHash == nil {
		s.byHash = make(map[uint64]uint32, len(s.classes))
		for n := range s.classes {
			s.byHash[hashSet(s.classes[n].lists)] = uint32(n)
		}
	}
	n, ok := s.byHash[hashSet(set)]
	return n, ok && slices.Equal(s.classes[n].lists, set)
}

// make makes a class below another, whose lists are some of its own.
func (t *transition) make(set []uint32, parent uint32) (uint32, bool) {
	s := t.side
	if s.total += len(set); s.total > maxMemberships || len(s.classes) == maxClasses {
		return 0, false
	}
	var added []uint32
	above := s.classes[parent].lists
	for _, n := range set {
		if _, has := slices.BinarySearch(above, n); !has {
			added = append(added, n)
		}
	}
	n := uint32(len(s.classes))
	s.classes = append(s.classes, class{lists: set, parent: int32(parent), added: added})
	s.byHash[hashSet(set)] = n
	return n, true
}
