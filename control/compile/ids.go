package compile

// idAllocator hands out stable rule ids. A rule keeps its id for as long as its policy and name stay, because its
// counters are indexed by it; the id of a removed rule is not reused while it is retired.
type idAllocator struct {
	before  map[string]uint32
	blocked map[uint32]bool // in use by a rule of before, or retired
	used    map[string]uint32
	next    uint32
}

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
