package classify

import (
	"maps"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"sluice/xdp/abi"
)

// rebuildBuckets makes those anew whose rules are others now, and the prefix tables where classes are.
func (s *step) rebuildBuckets() bool {
	for i := range s.gone {
		s.gone[i].eachBucket(s.addKey)
	}
	for _, n := range slices.Sorted(maps.Keys(s.write)) {
		r := &s.rules[n]
		if r.first != r.end {
			r.eachBucket(s.addKey)
			s.plan(r).Keys |= r.manner.key()
		}
	}
	if len(s.keys) > mostKeys {
		return false
	}
	flagged := [2]map[uint32]bool{{}, {}}
	if !s.fillBuckets(s.members(), func(direction int, class uint32) { flagged[direction][class] = true }) {
		return false
	}
	s.addUp()
	var group errgroup.Group
	for d, side := range s.sides() {
		group.Go(func() error {
			s.patchPrefixes(d, side, flagged[d])
			return nil
		})
	}
	_ = group.Wait() // none can fail
	return true
}

func (s *step) addKey(key bucketKey) {
	if _, known := s.known[key]; !known {
		s.known[key] = len(s.keys)
		s.keys = append(s.keys, key)
	}
}

// members are the entries of the buckets to be made, in ascending order.
func (s *step) members() [][]uint32 {
	out := make([][]uint32, len(s.keys))
	near := [2]*census{newCensus(len(s.src.classes)), newCensus(len(s.dst.classes))}
	for _, key := range s.keys {
		near[0].add(key.src)
		near[1].add(key.dst)
	}
	near[0].sum()
	near[1].sum()
	for n := range s.rules {
		r := &s.rules[n]
		if r.first == r.end || !near[0].holds(r, r.src, bySource, belowSource) || !near[1].holds(r, r.dst, byDestination, belowDestination) {
			continue
		}
		r.eachBucket(func(key bucketKey) {
			if i, known := s.known[key]; known {
				for e := r.first; e < r.end; e++ {
					out[i] = append(out[i], e)
				}
			}
		})
	}
	return out
}

// census tells whether buckets are made anew of classes in a range: most rules go where none is.
type census struct {
	before []int32 // by class: how many below it
	none   bool    // some are of no class
}

func newCensus(classes int) *census { return &census{before: make([]int32, classes+1)} }

func (c *census) add(class uint32) {
	if class == abi.NoClass {
		c.none = true
	} else {
		c.before[class+1] = 1
	}
}

func (c *census) sum() {
	for n := 1; n < len(c.before); n++ {
		c.before[n] += c.before[n-1]
	}
}

// holds says whether a rule may go into one of the buckets, by one direction, whose manners are given.
func (c *census) holds(r *placed, set *classSet, of, below manner) bool {
	if r.manner != byBoth && r.manner != of && r.manner != below {
		return c.none
	}
	first, last := set.hull.First, set.hull.Last
	return first != abi.NoClass && c.before[min(int(last)+1, len(c.before)-1)] > c.before[min(int(first), len(c.before)-1)]
}

// fillBuckets writes leaves and slots. It tells which classes have a bucket of a kind that they had not.
func (s *step) fillBuckets(members [][]uint32, flagged func(direction int, class uint32)) bool {
	t := s.tables
	t.Buckets = slices.Clone(t.Buckets)
	l := newLeaves(t.Rules)
	l.words = append(make([]uint64, 0, len(t.Leaves)+spareLeaves), t.Leaves...)
	l.walk, l.runs = t.walk, t.runs
	for i, key := range s.keys {
		leaf := uint32(0)
		if len(members[i]) > 0 {
			var err error
			if leaf, err = l.leaf(members[i]); err != nil {
				return false // compiling all of it finds the words for it
			}
		}
		if key.src == abi.NoClass && key.dst == abi.NoClass {
			s.setEverywhere(key, leaf)
			continue
		}
		if !s.setSlot(key, leaf, members[i]) {
			return false
		}
		if leaf != 0 {
			s.flag(key, func(of *swept, class uint32) {
				if of == s.src {
					flagged(0, class)
				} else {
					flagged(1, class)
				}
			})
		}
	}
	t.Leaves, t.walk, t.runs = l.words, l.walk, l.runs
	return true
}

// setSlot writes the slot of a bucket. That of an empty one stays, or those behind it were not found any more: it begins
// behind all entries. false: the table is too full for it.
func (s *step) setSlot(key bucketKey, leaf uint32, entries []uint32) bool {
	t := s.tables
	slot := t.findSlot(key)
	if slot != nil && slot.First == math.MaxUint32 {
		s.dead--
	}
	switch {
	case leaf != 0 && slot != nil:
		*slot = s.slot(key, leaf, entries)
	case leaf != 0:
		if s.filled++; 4*s.filled > 3*abi.BucketSlots*len(t.Buckets) {
			return false
		}
		fresh := s.slot(key, leaf, entries)
		probes := insert(t.Buckets, &fresh)
		t.probes = max(t.probes, probes)
		return probes <= abi.MaxBucketProbes
	case slot != nil:
		*slot = abi.BucketSlot{Kind: slot.Kind, Src: slot.Src, Dst: slot.Dst, Leaf: abi.LeafEntry, First: math.MaxUint32}
		s.dead++
	}
	return true
}

// patchPrefixes brings the prefix tables of a direction up to date.
func (s *step) patchPrefixes(d int, side *swept, flagged map[uint32]bool) {
	var values []uint32
	for family := range side.space {
		space, before := side.space[family], side.tables[family]
		regions := slices.Clone(s.relaid[d].dirty[family])
		if len(flagged) > 0 {
			regions = append(regions, regionsOf(space, flagged, s.relaid[d].known)...)
		}
		if len(regions) == 0 {
			continue
		}
		if values == nil {
			values = side.values()
		}
		now := before
		if before.affords(regions) {
			now = before.patched(space, regions, values)
		} else {
			now = newPrefixTable(space, family == 1, values)
		}
		side.tables[family], s.tables.Prefixes[tableOf(d, family)] = now, now
	}
}

// regionsOf are where these classes hold, but for those from the given one on: where they hold is known to be new.
func regionsOf(space []boundary, classes map[uint32]bool, fresh int) (out []region) {
	is := make([]bool, fresh)
	found := false
	for class := range classes {
		if int(class) < fresh {
			is[class], found = true, true
		}
	}
	if !found {
		return nil
	}
	for i := range space {
		if class := space[i].class; int(class) < fresh && is[class] {
			last := endOf
			if i+1 < len(space) {
				last = space[i+1].start.before()
			}
			out = append(out, region{space[i].start, last})
		}
	}
	return out
}
