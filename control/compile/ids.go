package compile

import (
	"maps"
	"math/bits"

	"sluice/xdp/abi"
)

// idAllocator hands out stable rule ids. A rule keeps its id for as long as its policy and name stay, because its
// counters are indexed by it; the id of a removed rule is not reused while it is retired.
//
// A policy's default has an id as well, for its counters; no rule's name has a "#".
type idAllocator struct {
	before  map[string]uint32
	retired map[uint32]bool
	claims  map[string]uint32 // Runtime.Claims
	fresh   map[string]uint32 // given to rules that had none
	used    idSet             // given
	blocked idSet             // in use by a rule of before, or retired; made when a first id is to be found
	next    uint32
}

// idSet has a bit for each id in it.
type idSet []uint64

func (s *idSet) add(id uint32) {
	for int(id/64) >= len(*s) {
		*s = append(*s, make([]uint64, 1+len(*s))...)
	}
	(*s)[id/64] |= 1 << (id % 64)
}

func (s *idSet) addAll(of idSet) {
	if len(*s) < len(of) {
		*s = append(*s, make([]uint64, len(of)-len(*s))...)
	}
	for n, word := range of {
		(*s)[n] |= word
	}
}

func (s idSet) remove(id uint32) {
	if s.has(id) {
		s[id/64] &^= 1 << (id % 64)
	}
}

func (s idSet) has(id uint32) bool { return int(id/64) < len(s) && s[id/64]>>(id%64)&1 != 0 }

func (s idSet) size() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// highest is 0 for an empty set.
func (s idSet) highest() uint32 {
	for n := len(s) - 1; n >= 0; n-- {
		if s[n] != 0 {
			return uint32(64*n + bits.Len64(s[n]) - 1)
		}
	}
	return 0
}

// MaxRuleID is the highest id that the data path has room for; 0 is nobody's.
const MaxRuleID = abi.RuleIDs - 1

func newIDAllocator(rt Runtime) *idAllocator {
	return &idAllocator{before: rt.RuleIDs, retired: rt.Retired, claims: rt.Claims, fresh: map[string]uint32{}, next: 1}
}

// free moves next to an id that nobody has.
func (a *idAllocator) free() {
	if a.blocked == nil {
		a.blocked = make(idSet, abi.RuleIDs/64)
		for _, id := range a.before {
			a.blocked.add(id)
		}
		for id, retired := range a.retired {
			if retired {
				a.blocked.add(id)
			}
		}
	}
	for a.blocked.has(a.next) {
		a.next++
	}
}

// ofDefault returns the id of a policy's default, or 0 where none is left: then it is not counted.
func (a *idAllocator) ofDefault(policy string) uint32 {
	key := policy + "#default"
	_, known := a.before[key]
	_, claimed := a.claims[key]
	if !known && !claimed {
		if a.free(); a.next > MaxRuleID {
			return 0
		}
	}
	return a.id(key)
}

// minSlots is what the counters begin with: 24 KB per possible CPU.
const minSlots = 1024

// slots is how many counters the ids in use need, to a power of two, so that a rule more or less seldom changes it.
func (a *idAllocator) slots() uint32 {
	return max(minSlots, uint32(1)<<bits.Len32(a.used.highest()))
}

// id returns the id of a rule by its key, policy/name. The same key always gets the same id: the XDP and the tcx
// programs share the counters of the policies that both judge.
func (a *idAllocator) id(key string) uint32 {
	id, known := a.before[key]
	if !known {
		if id, known = a.fresh[key]; !known {
			if id, known = a.claims[key]; !known {
				a.free()
				id = a.next
				a.next++
			}
			a.fresh[key] = id
		}
	}
	a.used.add(id)
	return id
}

// keeps says whether all of these rules, which had ids by the last compilation, would get them again.
func (a *idAllocator) keeps(last map[string]uint32) bool {
	if len(last) > len(a.before) {
		return false
	}
	for key, id := range last {
		if now, known := a.before[key]; !known || now != id {
			return false
		}
	}
	return true
}

// result are the ids in use by key: the map that came in, where they are the same.
func (a *idAllocator) result() map[string]uint32 {
	if len(a.fresh) == 0 && a.before != nil && a.used.size() == len(a.before) {
		return a.before
	}
	out := maps.Clone(a.before)
	maps.DeleteFunc(out, func(_ string, id uint32) bool { return !a.used.has(id) })
	if out == nil {
		return a.fresh
	}
	maps.Copy(out, a.fresh)
	return out
}
