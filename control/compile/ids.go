package compile

import (
	"math/bits"

	"sluice/xdp/abi"
)

// idAllocator hands out stable rule ids. A rule keeps its id for as long as its policy and name stay, because its
// counters are indexed by it; the id of a removed rule is not reused while it is retired.
//
// A policy's default has an id as well, for its counters; no rule's name has a "#".
type idAllocator struct {
	before  map[string]uint32
	blocked map[uint32]bool // in use by a rule of before, or retired
	used    map[string]uint32
	next    uint32
}

// MaxRuleID is the highest id that the data path has room for; 0 is nobody's.
const MaxRuleID = abi.RuleIDs - 1

func newIDAllocator(rt Runtime) *idAllocator {
	a := &idAllocator{before: rt.RuleIDs, blocked: map[uint32]bool{}, used: make(map[string]uint32, len(rt.RuleIDs)), next: 1}
	for _, id := range rt.RuleIDs {
		a.blocked[id] = true
	}
	for id, retired := range rt.Retired {
		if retired {
			a.blocked[id] = true
		}
	}
	return a
}

// ofDefault returns the id of a policy's default, or 0 where none is left: then it is not counted.
func (a *idAllocator) ofDefault(policy string) uint32 {
	key := policy + "#default"
	if _, known := a.before[key]; !known {
		for a.blocked[a.next] {
			a.next++
		}
		if a.next > MaxRuleID {
			return 0
		}
	}
	return a.id(key)
}

// minSlots is what the counters begin with: 24 KB per possible CPU.
const minSlots = 1024

// slots is how many counters the ids in use need, to a power of two, so that a rule more or less seldom changes it.
func (a *idAllocator) slots() uint32 {
	var highest uint32
	for _, id := range a.used {
		highest = max(highest, id)
	}
	return max(minSlots, uint32(1)<<bits.Len32(highest))
}

// id returns the id of a rule by its key, policy/name. The same key always gets the same id: the XDP and the tcx
// programs share the counters of the policies that both judge.
func (a *idAllocator) id(key string) uint32 {
	if id, ok := a.used[key]; ok {
		return id
	}
	id, ok := a.before[key]
	if !ok {
		for a.blocked[a.next] {
			a.next++
		}
		id = a.next
		a.next++
	}
	a.used[key] = id
	return id
}
