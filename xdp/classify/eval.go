package classify

import (
	"math"
	"slices"

	"sluice/xdp/abi"
)

// Eval judges a packet by a policy as classify.h does, with the same tables; its parts have the names of those there.
// The policy must exist: what C answers with REASON_INTERNAL is a panic here.
func (t *Tables) Eval(policy int, p Packet) Decision {
	pol := &t.Policies[policy]
	if p.Fragment && Fragments(pol.Fragments) == FragDrop {
		return Decision{Action: Drop, Reason: ByFragmentRule}
	}
	v := view{Tables: t, p: p}
	v.classify()
	act := search{kind: uint32(policy), limit: math.MaxUint32}
	v.search(&act, &pol.Act)
	shadows := search{kind: uint32(policy) | abi.BucketShadow, limit: act.limit}
	v.search(&shadows, &pol.Shadow)
	d := Decision{Action: Action(pol.DefaultAction), Reason: ByDefault}
	slices.Sort(shadows.counted)
	for _, entry := range shadows.counted {
		d.Shadows = append(d.Shadows, t.Rules[entry].ID)
	}
	switch {
	case act.limit == math.MaxUint32:
	case act.hidden && Fragments(pol.Fragments) == FragAccept:
		d.Action, d.Reason = Accept, ByFragmentRule
	case act.hidden:
		d.Reason = ByFragment
	default:
		d.Rule, d.Reason, d.Action = act.id, ByRule, act.action
		if act.action == Continue {
			does := t.Verdicts[act.limit]
			d.Rule, d.Action = does.ID, Action(does.Action)
		}
	}
	return d
}

// view is a packet with what is looked up of it.
type view struct {
	*Tables
	p               Packet
	src, dst, ports uint32
}

func (v *view) classify() {
	src, dst := abi.ClassSrc4, abi.ClassDst4
	if v.p.Src.Is6() {
		src, dst = abi.ClassSrc6, abi.ClassDst6
	}
	v.src, v.dst = v.Prefixes[src].lookup(v.p.Src), v.Prefixes[dst].lookup(v.p.Dst)
	switch {
	case v.p.NonFirst:
		v.ports = abi.PortKeyHidden | uint32(v.p.Protocol)
	case v.p.HasPorts:
		v.ports = uint32(v.p.Protocol)<<16 | uint32(v.p.DstPort)
	default:
		v.ports = uint32(v.p.Protocol) << 16
	}
}

type search struct {
	kind, limit uint32
	hidden      bool
	id          uint32 // of the entry, and what it does, where that is all of its verdict; else action is Continue
	action      Action
	counted     []uint32 // entries of shadow rules
}

func (v *view) search(s *search, plan *abi.SearchPlan) {
	src, dst := v.src&abi.ClassNumber, v.dst&abi.ClassNumber
	v.searchLeaf(s, plan.Everywhere)
	if plan.Keys&abi.KeySrc != 0 && v.src&abi.ClassKeyed != 0 {
		v.searchBucket(s, bucketKey{s.kind, src, abi.NoClass})
	}
	if plan.Keys&abi.KeyDst != 0 && v.dst&abi.ClassKeyed != 0 {
		v.searchBucket(s, bucketKey{s.kind, abi.NoClass, dst})
	}
	if plan.Keys&abi.KeyBoth != 0 && v.src&v.dst&abi.ClassPaired != 0 {
		v.searchBucket(s, bucketKey{s.kind, src, dst})
	}
	if plan.Keys&abi.KeyWideSrc != 0 {
		v.searchWide(v.Up[0], src, func(class uint32) {
			v.searchBucket(s, bucketKey{s.kind | abi.BucketWide, class, abi.NoClass})
		})
	}
	if plan.Keys&abi.KeyWideDst != 0 {
		v.searchWide(v.Up[1], dst, func(class uint32) {
			v.searchBucket(s, bucketKey{s.kind | abi.BucketWide, abi.NoClass, class})
		})
	}
}

func (v *view) searchWide(up []uint64, class uint32, ask func(class uint32)) {
	for range abi.MaxAncestors {
		ask(class)
		if class = uint32(up[class]); class == abi.NoClass {
			return
		}
	}
}

func (s *search) settle(entry, id uint32, action uint8) {
	s.limit, s.hidden, s.id, s.action = entry, false, id, Action(action)
}

func (v *view) searchBucket(s *search, key bucketKey) {
	slot := v.findSlot(key)
	if slot == nil || slot.First >= s.limit {
		return
	}
	if slot.Flags&abi.HeadHere != 0 {
		switch m := v.matchHead(slot); {
		case m == matched:
			s.settle(slot.First, slot.ID, headAction(slot))
			return
		case m == matchUnknown && slot.Flags&abi.RuleHidden != 0:
			s.limit, s.hidden = slot.First, true
			return
		}
		if slot.Flags&abi.HeadAlone != 0 {
			return
		}
	}
	v.searchLeaf(s, slot.Leaf)
}

func (v *view) matchHead(slot *abi.BucketSlot) match {
	switch {
	case slot.Flags&abi.RuleAnyProtocol == 0 && slot.Protocol != v.p.Protocol:
		return noMatch
	case slot.Flags&(abi.RulePorts|abi.RuleSourcePorts) == 0:
		return matched
	case v.p.NonFirst:
		return matchUnknown
	case !v.p.HasPorts,
		slot.Flags&abi.RulePorts != 0 && !inPorts(slot.Ports, v.p.DstPort),
		slot.Flags&abi.RuleSourcePorts != 0 && !inPorts(slot.SourcePorts, v.p.SrcPort):
		return noMatch
	}
	return matched
}

func headAction(slot *abi.BucketSlot) uint8 {
	switch {
	case slot.Flags&abi.HeadPlain == 0:
		return uint8(Continue)
	case slot.Flags&abi.HeadDrops != 0:
		return uint8(Drop)
	}
	return uint8(Accept)
}

func (v *view) searchLeaf(s *search, leaf uint32) {
	if leaf != 0 && leaf&abi.LeafEntry == 0 {
		leaf = v.runOfLeaf(leaf)
	}
	if leaf&abi.LeafEntry != 0 {
		v.tryEntry(s, leaf)
		return
	}
	for ; leaf != 0; leaf++ {
		word := v.Leaves[leaf]
		if v.tryEntry(s, uint32(word)) || word&abi.ListMore == 0 {
			return
		}
	}
}

func (v *view) runOfLeaf(leaf uint32) uint32 {
	header := v.Leaves[leaf]
	key := uint64(v.ports)<<32 | 0xffffffff
	first := uint64(0)
	for half := header >> 32; half > 0; half /= 2 {
		if first+half < header&0xffffffff && v.Leaves[uint64(leaf)+1+first+half] <= key {
			first += half
		}
	}
	return uint32(v.Leaves[uint64(leaf)+1+first])
}

// tryEntry takes an entry, perhaps with ENTRY_SURE. It returns true when a list need not be walked further.
func (v *view) tryEntry(s *search, found uint32) bool {
	entry := found & abi.EntryNumber
	if entry >= s.limit {
		return true
	}
	if found&abi.EntrySure != 0 {
		s.settle(entry, 0, 0)
		return true
	}
	r := &v.Rules[entry]
	switch v.match(r) {
	case matched:
		if s.kind&abi.BucketShadow != 0 {
			s.counted = append(s.counted, entry)
			return false
		}
		action := uint8(Continue)
		if r.Flags&abi.RulePlain != 0 {
			action = r.Action
		}
		s.settle(entry, r.ID, action)
		return true
	case matchUnknown:
		if r.Flags&abi.RuleHidden != 0 {
			s.limit, s.hidden = entry, true
			return true
		}
	}
	return false
}

type match int

const (
	noMatch match = iota
	matched
	matchUnknown // the packet hides its transport header
)

func (v *view) match(r *abi.Rule) match {
	switch {
	case r.Flags&abi.RuleAnyProtocol == 0 && r.Protocol != v.p.Protocol,
		r.Flags&abi.RuleSrc != 0 && !inClasses(r.Src, v.src),
		r.Flags&abi.RuleDst != 0 && !inClasses(r.Dst, v.dst),
		r.Flags&abi.RuleRest != 0 && !matchRest(r, &v.p):
		return noMatch
	case r.Flags&abi.RuleTransport == 0:
		return matched
	case v.p.NonFirst:
		return matchUnknown
	case r.Flags&(abi.RuleICMP|abi.RuleTCP) != 0 && !matchHeader(r, &v.p):
		return noMatch
	case r.Flags&(abi.RulePorts|abi.RuleSourcePorts) == 0:
		return matched
	case !v.p.HasPorts,
		r.Flags&abi.RulePorts != 0 && !inPorts(r.Ports, v.p.DstPort),
		r.Flags&abi.RuleSourcePorts != 0 && !inPorts(r.SourcePorts, v.p.SrcPort):
		return noMatch
	}
	return matched
}

func inPorts(r abi.PortRange, port uint16) bool { return port >= r.First && port <= r.Last }

func inClasses(r abi.ClassRange, class uint32) bool {
	class &= abi.ClassNumber
	return class >= r.First && class <= r.Last
}
