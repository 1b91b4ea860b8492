package classify

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"sluice/xdp/abi"
)

// What one step may change. More than that is compiled from scratch, which costs a second at a million prefixes.
const (
	mostEdits   = 1024    // of rules
	mostKeys    = 1 << 16 // buckets that are made anew
	mostFew     = 4 * fewEntries
	mostAbove   = abi.MaxAncestors / 2 // ancestors: classes that come later may lie deeper than they must
	spareLeaves = 1 << 12
)

// sizes are those by which waste is judged.
type sizes struct{ classes, leaves, slots int }

func (c *compiler) measure() {
	c.fresh = sizes{c.tables.classes, len(c.tables.Leaves), abi.BucketSlots * len(c.tables.Buckets)}
	for i := range c.tables.Buckets {
		for _, slot := range c.tables.Buckets[i].Slot {
			if slot.Leaf != 0 {
				c.filled++
			}
		}
	}
}

// wasteful says whether a quarter of the tables is of no use any more, or of use to nobody but a history of changes.
func (c *compiler) wasteful() bool {
	return c.tables.classes > 2*c.fresh.classes+1024 || len(c.tables.Leaves) > c.fresh.leaves*5/4+spareLeaves ||
		c.dead > c.fresh.slots/8+64 || c.tables.ancestors > mostAbove || c.total > maxPlaced*5/4
}

// step is one change of the rules, on its way into the tables.
type step struct {
	*compiler
	gone   []placed     // rules as they were, whose buckets hold something else now
	redo   []int        // rules that are new, or that have other classes
	write  map[int]bool // rules whose entries are to be written
	lists  [2][]int     // by direction: those that may have come, gone or changed
	relaid [2]*relayer
	keys   []bucketKey // of the buckets that are made anew
	known  map[bucketKey]int
}

// advance compiles what is another now. It returns nil where that is too much, or where something is wrong: then the
// compiler is of no use any more.
func (c *compiler) advance(policies []Policy) *Tables {
	if !c.sameHeads(policies) {
		return nil
	}
	s := &step{compiler: c, write: map[int]bool{}, known: map[bucketKey]int{}}
	changed, ok := s.takeRules(policies)
	if !ok {
		return nil
	}
	if !changed {
		return c.tables
	}
	if !s.relay() {
		return nil
	}
	s.reclassify()
	tables := *c.tables
	c.tables = &tables
	tables.Rules, tables.Verdicts, tables.Policies = slices.Clone(tables.Rules), slices.Clone(tables.Verdicts), slices.Clone(tables.Policies)
	for i := range policies {
		policies[i].head(&tables.Policies[i])
	}
	if !s.placeAnew() || !s.rebuildBuckets() || c.wasteful() {
		return nil
	}
	c.steps++
	return c.tables
}

// sameHeads says whether the policies are still these, whatever their rules.
func (c *compiler) sameHeads(policies []Policy) bool {
	return len(validateHeads(policies)) == 0 && slices.EqualFunc(c.policies, policies, func(a, b Policy) bool {
		return a.Name == b.Name && (a.Default == Continue) == (b.Default == Continue) // which entries depend on
	})
}

// takeRules brings the list of rules up to date, and tells whether anything is another now.
func (s *step) takeRules(policies []Policy) (changed, ok bool) {
	edits := make([][]Edit, len(policies))
	relisted := make([]atomic.Bool, len(policies)) // lists are in other memory
	count := 0
	for i := range policies {
		a, b := &s.policies[i], &policies[i]
		changed = changed || a.Default != b.Default || a.DefaultID != b.DefaultID || a.Fragments != b.Fragments
		if !sameMemory(a.Rules, b.Rules) {
			edits[i] = Edits(a.Rules, b.Rules, func(a, b *Rule) bool { return near(a, b, &relisted[i]) })
		}
		for _, e := range edits[i] {
			count += e.Removed + e.Added
		}
	}
	if count > mostEdits {
		return false, false
	}
	from := len(s.rules)
	for i := len(policies) - 1; i >= 0; i-- {
		from -= len(s.policies[i].Rules)
		for _, e := range slices.Backward(edits[i]) {
			s.exchange(from+e.Before, e)
		}
	}
	follows := follower{step: s}
	n := 0
	var fresh []int
	for i := range policies {
		rules := policies[i].Rules
		look := relisted[i].Load()
		for j := range rules {
			p := &s.rules[n]
			switch {
			case p.rule == nil:
				if *p = newPlaced(i, &policies[i], &rules[j]); len(problems(&rules[j])) > 0 {
					return false, false
				}
				fresh = append(fresh, n)
			case look:
				if !follows.rule(p, &rules[j]) {
					return false, false
				}
				fallthrough
			default:
				p.rule, p.in = &rules[j], &policies[i]
			}
			n++
		}
	}
	if !follows.consistent() {
		return false, false
	}
	for _, n := range fresh {
		for d, side := range s.sides() {
			side.enlist(&s.rules[n], d)
			s.lists[d] = append(s.lists[d], s.rules[n].ownLists(d)...)
		}
	}
	s.policies, s.redo = policies, fresh
	return changed || count > 0 || len(follows.lists) > 0, true
}

// exchange puts rules that are yet to be filled in into the place of others, which are kept in gone.
func (s *step) exchange(at int, e Edit) {
	for i := at; i < at+e.Removed; i++ {
		r := s.rules[i]
		s.gone = append(s.gone, r)
		for d, side := range s.sides() {
			for _, n := range r.ownLists(d) {
				side.lists[n].uses--
				s.lists[d] = append(s.lists[d], n)
			}
		}
	}
	s.rules = slices.Replace(s.rules, at, at+e.Removed, make([]placed, e.Added)...)
}

// ownLists are the numbers of the lists of a direction.
func (p *placed) ownLists(direction int) (out []int) {
	for _, n := range p.lists[direction] {
		if n != none {
			out = append(out, n)
		}
	}
	return out
}

// relay brings both address spaces up to date with the lists.
func (s *step) relay() bool {
	var group errgroup.Group
	var done [2]bool
	for d, side := range s.sides() {
		group.Go(func() error {
			slices.Sort(s.lists[d])
			lists := slices.Compact(s.lists[d])
			for _, n := range lists {
				side.abandon(n)
			}
			s.relaid[d], done[d] = side.relay(lists)
			return nil
		})
	}
	_ = group.Wait() // none can fail
	return done[0] && done[1]
}

// abandon forgets a list that no rule names any more. One of a single prefix may come back under its number.
func (s *side) abandon(n int) {
	if l := &s.lists[n]; l.uses == 0 && len(l.prefixes) > 1 {
		delete(s.bySlice, sliceID{&l.prefixes[0], len(l.prefixes)})
		l.prefixes = nil
	}
}

// reclassify gives rules their classes: those that are new, and those whose lists have new classes.
func (s *step) reclassify() {
	for _, n := range s.redo {
		for d, side := range s.sides() {
			side.tell(&s.rules[n], d)
		}
		s.judgeFamilies(&s.rules[n])
	}
	if len(s.relaid[0].touched)+len(s.relaid[1].touched) == 0 {
		return
	}
	fresh := len(s.redo)
	for n := range s.rules {
		r := &s.rules[n]
		if !s.relaid[0].touches(r.lists[0]) && !s.relaid[1].touches(r.lists[1]) {
			continue
		}
		if _, isFresh := slices.BinarySearch(s.redo[:fresh], n); isFresh {
			continue
		}
		before := *r
		for d, side := range s.sides() {
			side.tell(r, d)
		}
		s.judgeFamilies(r)
		if r.never != before.never || !before.src.equal(r.src) || !before.dst.equal(r.dst) {
			s.gone = append(s.gone, before)
			s.redo = append(s.redo, n)
		}
	}
	slices.Sort(s.redo)
}

func (r *relayer) touches(lists [2]int) bool {
	return len(r.touched) > 0 && (lists[0] != none && r.touched[lists[0]] || lists[1] != none && r.touched[lists[1]])
}

func (c *classSet) equal(d *classSet) bool {
	return c == d || c.any == d.any && slices.Equal(c.ranges, d.ranges) && slices.Equal(c.first, d.first)
}

// placeAnew chooses manners, finds numbers and writes the entries.
func (s *step) placeAnew() bool {
	few := make([]int, len(s.policies))
	for i := range s.gone {
		s.total -= s.gone[i].weight(s.gone[i].manner)
		s.tables.entries -= int(s.gone[i].end - s.gone[i].first)
	}
	for _, n := range s.redo {
		r := &s.rules[n]
		r.settle(s.level, s.few[r.policy])
		s.total += r.weight(r.manner)
		count := r.entries(r.manner)
		s.tables.entries += count
		s.write[n] = true
		if count != int(r.end-r.first) && !s.renumber(n, count, s.move) {
			return false
		}
	}
	for i := range s.rules { // policies of few entries have nothing but these, and the others are not counted
		if r := &s.rules[i]; s.few[r.policy] {
			if few[r.policy] += int(r.end - r.first); few[r.policy] > mostFew {
				return false
			}
		}
	}
	if s.tables.entries > abi.MaxRules {
		return false
	}
	for i := range s.gone {
		clear(s.tables.Rules[s.gone[i].first:s.gone[i].end])
		clear(s.tables.Verdicts[s.gone[i].first:s.gone[i].end])
	}
	for n := range s.write {
		s.compiler.write(&s.rules[n])
	}
	return true
}

// move is told of a rule that is about to get other numbers.
func (s *step) move(n int) {
	if r := s.rules[n]; !s.write[n] {
		s.gone = append(s.gone, r)
		s.write[n] = true
	}
}
